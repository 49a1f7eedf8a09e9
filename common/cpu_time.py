"""CPU seconds of this process, and of what it spends on talking to others.

Read from Linux's /proc, in nanoseconds; 0 of a kernel that keeps no schedstat.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

_TASKS = Path("/proc/self/task")
_ZMQ = "ZMQ"  # how ZeroMQ names its threads: sockets are read and decrypted there


def seconds() -> dict[str, float]:
    """Since the start of the process: `process`, all its threads; `thread`, the calling one; `zmq`, ZeroMQ's own."""
    return {"process": time.process_time(), "thread": time.thread_time(), "zmq": sum(_of_threads(_ZMQ))}


def _of_threads(prefix: str) -> Iterator[float]:
    for task in _TASKS.iterdir():
        try:
            if (task / "comm").read_text().startswith(prefix):
                yield int((task / "schedstat").read_text().split()[0]) / 1e9
        except OSError:  # it has ended meanwhile, or there is no schedstat
            continue
