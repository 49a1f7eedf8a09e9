"""`azr execute --self-test`: does the sandbox hold on this machine? Told by the attacks it refuses and by the kernel.

Every fork server puts itself to the probes of executor/selftest.py before it serves. What each process has taken from
itself is read from /proc, where it cannot be claimed falsely; Landlock alone leaves no trace there and is told by the
process before it meets anything untrusted.
"""

from __future__ import annotations

import asyncio
import os
import platform
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from azr.execute import started
from common.config import ExecutorConfig
from common.errors import SandboxUnavailable
from executor.process import Process
from executor.selftest import PROBES, Probe
from executor.shard import Shard

_FILTERED = "2"  # seccomp mode of /proc/PID/status


@dataclass(frozen=True, slots=True)
class Confinement:
    """Of one process, as the kernel sees it."""

    name: str
    filtered: bool  # by seccomp
    unprivileged: bool  # no new privileges, and not root
    address_space: int  # bytes; 0: unlimited
    files: bool  # whether it may write any
    landlock: int  # ABI, 0: none
    native: bool

    @property
    def holds(self) -> bool:
        return self.filtered and self.unprivileged and self.address_space > 0 and not self.files

    @classmethod
    def of(cls, process: Process) -> Confinement:
        folder = Path(f"/proc/{process.pid}")
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        limits = {line[:25].strip(): line[25:].split()[0] for line in (folder / "limits").read_text().splitlines()[1:]}
        space = limits["Max address space"]
        return cls(
            process.name,
            filtered=status["Seccomp"].strip() == _FILTERED,
            unprivileged=status["NoNewPrivs"].strip() == "1" and "0" not in status["Uid"].split(),
            address_space=0 if space == "unlimited" else int(space),
            files=limits["Max file size"] != "0",
            landlock=process.landlock,
            native=process.native,
        )


def selftest(config: ExecutorConfig) -> int:
    """Start one shard and print what confines it. SandboxUnavailable, naming what is missing, if anything but Landlock
    is."""
    print(f"{platform.system()} {platform.release()} on {platform.machine()}, user {os.getuid()}")
    found = asyncio.run(_examine(Shard(config)))
    print(report(found, config))
    loose = [each.name for each in found if not each.holds]
    if loose:
        raise SandboxUnavailable(f"not confined as they should be: {', '.join(loose)}")
    return 0


async def _examine(shard: Shard) -> list[Confinement]:
    async with started([shard]):
        return [Confinement.of(process) for process in shard.processes]


def report(found: Sequence[Confinement], config: ExecutorConfig) -> str:
    """For people."""
    head = (
        f"{'process':<20}{'seccomp':>10}{'unprivileged':>14}{'address space':>15}{'writes files':>14}{'Landlock':>10}"
    )
    lines = [f"{head}  fork loop"]
    for each in found:
        space = f"{each.address_space >> 20} MiB" if each.address_space else "unlimited"
        loop = "in C" if each.native else "-" if each is found[0] else "pure Python"
        cells = f"{_word(each.filtered):>10}{_word(each.unprivileged):>14}{space:>15}{_word(each.files):>14}"
        lines.append(f"{each.name:<20}{cells}{f'ABI {each.landlock}' if each.landlock else 'missing':>10}  {loop}")
    slices = f"{config.first_slice * 1000:g} ms in a fast one, {config.cpu_limit * 1000:g} ms in a slow one"
    lines.append(f"CPU time of a child: {slices}; memory: the address space above")
    lines += [f"refused in {len(found) - 1} fork servers: {probe.name} ({_refusal(probe)})" for probe in PROBES]
    return "\n".join(lines)


def _word(holds: bool) -> str:
    return "yes" if holds else "no"


def _refusal(probe: Probe) -> str:
    return f"killed by {signal.Signals(probe.killed_by).name}" if probe.killed_by else "an error"
