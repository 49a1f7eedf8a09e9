"""What processes cost, read from /proc: CPU time, memory, descriptors, zombies.

CPU time is the kernel's own sum of nanoseconds for the process and its sum of clock ticks (mostly 10 ms) for children
that it has waited for, so a difference over many children is exact to a tick. Memory and descriptors of a process that
is not ours to look into (confined, and we are not root) are None, not 0.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")  # a second
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Fields of /proc/PID/stat behind the name, which may hold anything; the first of them is the state.
_STATE, _PARENT, _FAULTS, _REAPED_FAULTS, _USER, _REAPED_USER = 0, 1, 7, 8, 11, 13


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes and counts. `pss` divides what is shared by the processes that share it."""

    rss: int
    pss: int | None
    descriptors: int | None
    zombies: int  # children that have ended and were not waited for


def cpu(pid: int) -> float:
    """Seconds, with those of children that were waited for. FileNotFoundError once it has ended."""
    return own_cpu(pid) + _ticks(pid, _REAPED_USER)


def own_cpu(pid: int) -> float:
    """Seconds, without children. FileNotFoundError once it has ended."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) * 1e-9
    except FileNotFoundError:  # a kernel without it
        return _ticks(pid, _USER)


def faults(pid: int) -> int:
    """Pages that the kernel had to map or copy for it and for children that were waited for. Unlike times, the same on
    a busy machine. FileNotFoundError once it has ended."""
    fields = _stat(pid)
    return int(fields[_FAULTS]) + int(fields[_REAPED_FAULTS])


def footprints(pids: Iterable[int]) -> dict[int, Footprint]:
    """FileNotFoundError if one has ended."""
    dead = [int(fields[_PARENT]) for fields in _all_stats() if fields[_STATE] == "Z"]
    return {pid: Footprint(_rss(pid), _pss(pid), _descriptors(pid), dead.count(pid)) for pid in pids}


def _stat(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()


def _ticks(pid: int, place: int) -> float:
    """User and system time, which are neighbours."""
    return sum(map(int, _stat(pid)[place : place + 2])) / _TICKS


def _all_stats() -> Iterable[list[str]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                yield _stat(int(name))
            except (FileNotFoundError, ProcessLookupError):
                pass  # ended since it was listed


def _rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE


def _pss(pid: int) -> int | None:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except PermissionError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)


def _descriptors(pid: int) -> int | None:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except PermissionError:
        return None
