"""No process outlives its run, not even when the driver is killed and cannot clean up.

A guard process waits for the driver's end of a pipe to close and then kills what is left of the run. It finds that by
an environment variable with a token of the run, which all its processes inherit, and by the processes the driver has
named (`Guard.remember`), since some of Ray's overwrite their environment with their title. Never by name; a process
number that was given to another process meanwhile is recognised by its start time. Sandboxes have an empty
environment; they die with the process that owns them (PR_SET_PDEATHSIG).

Not covered: processes on other machines of a Ray cluster, which end with the driver's job there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

TOKEN = "AZR_RUN_TOKEN"


class Guard:
    """The driver's end of the pipe."""

    def __init__(self, token: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, token], stdin=subprocess.PIPE, env={}, start_new_session=True
        )

    def remember(self) -> None:
        """Have all present descendants of this process killed too, should it die."""
        assert self._process.stdin is not None
        for pid, start in _descendants(os.getpid()):
            self._process.stdin.write(f"{pid} {start}\n".encode())
        self._process.stdin.flush()

    def close(self) -> None:
        self._process.communicate()


@contextlib.contextmanager
def guarded() -> Iterator[Guard]:
    """Mark this process's future children, guard them, and leave none behind."""
    token = secrets.token_hex(16)
    os.environ[TOKEN] = token
    guard = Guard(token)
    try:
        yield guard
    finally:
        del os.environ[TOKEN]
        kill_marked(token)
        guard.close()


def kill_marked(token: str) -> list[int]:
    """SIGKILL every process whose environment at its start held the token, this one excepted. Returns their ids."""
    killed: list[int] = []
    mark = f"{TOKEN}={token}".encode()
    found = True
    while found:  # a process may have been forked behind the scan
        found = False
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in (os.getpid(), *killed):
                continue
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed.append(int(entry.name))
                    found = True
    return killed


def kill_remembered(lines: Iterable[str]) -> None:
    """SIGKILL the processes of `lines` ("pid start-time"), as far as they are still the same."""
    for line in lines:
        pid, start = map(int, line.split())
        with contextlib.suppress(OSError):
            if _parent_and_start(pid)[1] == start:
                os.kill(pid, signal.SIGKILL)


def _descendants(root: int) -> list[tuple[int, int]]:
    """(pid, start time in clock ticks since boot) of all descendants of `root`."""
    parents: dict[int, tuple[int, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = _parent_and_start(int(entry.name))
    family = {root}
    while more := {pid for pid, (parent, _) in parents.items() if parent in family} - family:
        family |= more
    return [(pid, parents[pid][1]) for pid in family - {root}]


def _parent_and_start(pid: int) -> tuple[int, int]:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


if __name__ == "__main__":
    remembered = sys.stdin.read().splitlines()
    kill_marked(sys.argv[1])
    kill_remembered(remembered)
