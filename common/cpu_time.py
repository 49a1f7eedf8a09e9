"""CPU seconds of this process, and of what it spends on talking to others.

Read from Linux's /proc, in nanoseconds; 0 of a kernel that keeps no schedstat.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

_TASKS = Path("/proc/self/task")
_ZMQ = "ZMQ"  # how ZeroMQ names its threads: sockets are read and decrypted there


class CpuTime:
    """Counts from its first reading, so that what a process needs to start is left out."""

    def __init__(self) -> None:
        self._first: dict[str, float] | None = None

    def read(self) -> dict[str, float]:
        """`process`, all its threads; `thread`, the calling one, always the same; `zmq`, ZeroMQ's own."""
        now = _seconds()
        self._first = self._first or now
        return {what: total - self._first[what] for what, total in now.items()}


def _seconds() -> dict[str, float]:
    return {"process": time.process_time(), "thread": time.thread_time(), "zmq": sum(_of_threads(_ZMQ))}


def _of_threads(prefix: str) -> Iterator[float]:
    for task in _TASKS.iterdir():
        try:
            if (task / "comm").read_text().startswith(prefix):
                yield int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:  # it has ended meanwhile, or there is no schedstat
            continue
