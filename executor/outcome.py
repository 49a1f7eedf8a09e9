"""What one program does with one input, and what two runs of it come to."""

from __future__ import annotations

from dataclasses import dataclass

from common.types import Status

# Statuses that a second run would repeat; those of time, memory and crashes depend on the load.
LASTING = frozenset(
    (Status.OK, Status.ERROR, Status.INPUT, Status.EXIT, Status.UNSERIALISABLE, Status.TOO_BIG, Status.NONDETERMINISTIC)
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """`text` is canonical and `key` set when `status` is "ok"; otherwise `text` is the reason, if there is one."""

    status: str
    text: str = ""
    key: bytes = b""


def agreed(first: Outcome, second: Outcome) -> Outcome:
    """One outcome of two runs: ok only if both are and are equal. A death explains more than discord does, and an
    input that was not run says nothing."""
    if first.status == second.status:
        return first if first.key == second.key else Outcome(Status.NONDETERMINISTIC)
    failures = [outcome for outcome in (first, second) if outcome.status != Status.OK]
    gravest = min(failures, key=lambda outcome: (outcome.status in LASTING, outcome.status == Status.INFRA))
    return Outcome(Status.NONDETERMINISTIC) if gravest.status in LASTING else gravest
