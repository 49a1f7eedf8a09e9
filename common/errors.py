"""The vocabulary of failures.

A failed *rollout* is data (a status or a `failure` on its group) and raises nothing. A failed *part* raises one of
these; the message says which part, what happened and what to try, and the command line prints it without a traceback.
"""

from __future__ import annotations


class AzrError(Exception):
    """Base of every error this project raises on purpose."""


class ConfigError(AzrError):
    """A configuration that cannot be run as written."""


class PartFailed(AzrError):
    """A process of the run failed or never came up."""

    def __init__(self, part: str, what: str, *, log: str = "", hint: str = "") -> None:
        self.part, self.what, self.log, self.hint = part, what, log, hint
        lines = [f"{part}: {what}"]
        if log:
            lines.append(f"  log: {log}")
        if hint:
            lines.append(f"  try: {hint}")
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (self.part, self.what, self.log, self.hint))


def _rebuild(part: str, what: str, log: str, hint: str) -> PartFailed:
    return PartFailed(part, what, log=log, hint=hint)


class WeightTransferFailed(AzrError):
    """A push could not be staged. The engine serves the weights it had; the group of that push is dead."""


class WireError(AzrError):
    """A frame that does not follow the wire schema. The frame is dropped; the peer and the run go on."""


class Refused(AzrError):
    """A server turned the HELLO of a client down."""


class SandboxUnavailable(AzrError):
    """This kernel or container does not let the sandbox be built; untrusted code is not run without it."""
