"""No process outlives its run, not even when the driver is killed and cannot clean up.

A guard process waits for the driver's end of a pipe to close and then kills what is left of the run: the processes
that carry a token of the run in their environment, those the driver has named (`Guard.remember`), and all descendants
of either, since some of Ray's overwrite their environment with their title and outlive their parent. Never by name; a
process number that was given to another process meanwhile is recognised by its start time. Sandboxes have an empty
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
from typing import NamedTuple

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
        processes = _processes()
        for pid in _family({os.getpid()}, processes) - {os.getpid()}:
            self._process.stdin.write(f"{pid} {processes[pid].start}\n".encode())
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
        kill_run(token)
        guard.close()


def kill_run(token: str, remembered: Iterable[str] = ()) -> list[int]:
    """SIGKILL every process whose environment at its start held the token, the remembered ones ("pid start-time"), as
    far as they are still the same, and the descendants of all these, this process excepted. Returns their ids."""
    known = [tuple(map(int, line.split())) for line in remembered]
    mark = f"{TOKEN}={token}".encode()
    killed: list[int] = []
    while True:  # a process may have been forked behind the scan; it still has its environment
        processes = _processes()
        roots = {pid for pid, start in known if pid in processes and processes[pid].start == start}
        roots |= {pid for pid in processes if mark in _environment(pid)}
        found = _family(roots - {os.getpid()}, processes) - {os.getpid(), *killed}
        if not found:
            return killed
        for pid in found:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        killed += sorted(found)


class _Process(NamedTuple):
    parent: int
    start: int  # clock ticks since boot


def _processes() -> dict[int, _Process]:
    processes: dict[int, _Process] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                processes[int(entry.name)] = _Process(int(fields[1]), int(fields[19]))
    return processes


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _family(family: set[int], processes: dict[int, _Process]) -> set[int]:
    """`family` and all its descendants."""
    while more := {pid for pid, process in processes.items() if process.parent in family} - family:
        family = family | more
    return family


if __name__ == "__main__":
    kill_run(sys.argv[1], sys.stdin.read().splitlines())
