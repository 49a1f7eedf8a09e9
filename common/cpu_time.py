"""CPU seconds of this process, and of what it spends on talking to others.

Read from Linux's /proc, in nanoseconds; 0 of a kernel that keeps no schedstat.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

_TASKS = Path("/proc/self/task")
_ZMQ = "ZMQ"  # how ZeroMQ names its threads: sockets are read and decrypted there


class CpuTime:
    """Counts from its first reading, so that what a process needs to start is left out."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}  # of threads, which are many; each is asked once
        self._first: dict[str, float] | None = None

    def read(self) -> dict[str, float]:
        """`process`, all its threads; `thread`, the calling one, always the same; `zmq`, ZeroMQ's own that live."""
        now = {"process": time.process_time(), "thread": time.thread_time(), "zmq": self._of_threads(_ZMQ)}
        self._first = self._first or now
        return {what: max(0.0, total - self._first[what]) for what, total in now.items()}

    def _of_threads(self, prefix: str) -> float:
        nanoseconds = 0
        for task in os.listdir(_TASKS):
            try:
                if task not in self._names:
                    self._names[task] = (_TASKS / task / "comm").read_text()
                if self._names[task].startswith(prefix):
                    nanoseconds += int((_TASKS / task / "schedstat").read_text().split()[0])
            except OSError:  # it has ended meanwhile, or there is no schedstat
                continue
        return nanoseconds / 1e9
