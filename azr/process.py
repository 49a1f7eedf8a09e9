"""What all processes of a run share.

Life of each: construct (takes its environment and its cores, sends its output to its log file), `public_key` and
`allow`, `start`, then `run` until the run is over or the part fails.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path

from azr.core_placement import keep_to
from azr.environment import environment
from azr.footprint import on_gpus
from azr.log_file import redirect
from azr.part import role_of
from azr.wiring import Network
from common.errors import AzrError, PartFailed


class Process:
    """`log` is where everything it prints goes."""

    def __init__(self, part: str, network: Network, folder: Path, cores: Sequence[int], log: Path) -> None:
        self.part = part
        os.environ.update(environment(role_of(part), gpus=on_gpus(network.config)))
        keep_to(cores)
        self.assign(network, folder, log)
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname).1s %(name)s: %(message)s", force=True)
        self.security = network.security()

    def assign(self, network: Network, folder: Path, log: Path) -> None:
        """Belong to this run. What is asked next is `start`, as of a new process; what is costly to make is kept."""
        self.network, self.config, self.folder, self.log = network, network.config, folder, log
        redirect(log)

    def ready(self) -> int:
        return os.getpid()

    def public_key(self) -> bytes:
        return self.security.public if self.security is not None else b""

    def allow(self, keys: Iterable[bytes]) -> None:
        if self.security is not None:
            for key in keys:
                self.security.add(key)

    def failure(self, error: BaseException) -> PartFailed:
        """`error` as something the driver can show; the traceback goes to the log."""
        traceback.print_exception(error)
        sys.stderr.flush()
        what = str(error) if isinstance(error, AzrError) else f"{type(error).__name__}: {error}"
        if isinstance(error, PartFailed):
            return PartFailed(error.part, _brief(error.what), log=error.log or str(self.log), hint=error.hint)
        return PartFailed(self.part, _brief(what), log=str(self.log))


def _brief(what: str, limit: int = 400) -> str:
    """Some libraries answer with pages; the whole of it is in the log."""
    return what if len(what) <= limit else what[:limit] + " …"
