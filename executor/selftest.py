"""Proof, at every start of a fork server, that its sandbox holds: each probe is an attack that must be refused.

A probe runs in a child made exactly like one that runs a program. It passes if the child dies by the expected signal
or leaves with `REFUSED`; any other end means that a layer is missing on this machine.
"""

from __future__ import annotations

import _socket
import mmap
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

REFUSED = 17  # exit status of a probe that was refused without being killed
CPU_MS, WALL_MS = 20, 10_000  # of each probe


@dataclass(frozen=True)
class Probe:
    name: str
    attack: Callable[[int], None]  # argument: bytes of memory a child may not have
    killed_by: int = 0  # signal; 0: refused with an exception


def _fork(_: int) -> None:
    os.fork()


def _open(_: int) -> None:
    os.open("/etc/passwd", os.O_RDONLY)


def _open_a_socket(_: int) -> None:
    _socket.socket()


def _kill(_: int) -> None:
    os.kill(1, 0)


def _make_code(_: int) -> None:
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)


def _grow(beyond: int) -> None:
    bytearray(beyond)


def _spin(_: int) -> None:
    while True:
        pass


PROBES = (
    Probe("fork", _fork, signal.SIGSYS),
    Probe("open", _open),
    Probe("socket", _open_a_socket, signal.SIGSYS),
    Probe("kill", _kill, signal.SIGSYS),
    Probe("executable memory", _make_code, signal.SIGSYS),
    Probe("memory limit", _grow),
    Probe("CPU limit", _spin, signal.SIGPROF),
)


def run(probe: Probe, beyond: int) -> int:
    """In the child: the exit status that says what became of the attack."""
    try:
        probe.attack(beyond)
    except (OSError, MemoryError):
        return REFUSED
    return 0


def passed(probe: Probe, status: int) -> bool:
    """`status` is the wait status of the child."""
    if probe.killed_by:
        return os.WIFSIGNALED(status) and os.WTERMSIG(status) == probe.killed_by
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == REFUSED
