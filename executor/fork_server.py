"""The fork servers of a side, as the shard starts them: put to the proof each time, before they see a program."""

from __future__ import annotations

from pathlib import Path

from common.config import ExecutorConfig
from common.errors import SandboxUnavailable
from executor import frames, selftest
from executor.process import Ask, Process

_NICE = 10  # of the slow one: hardly felt by the fast one, and not starved on busy cores
_OUTPUT = 1 << 16  # bytes a probe may write


def fork_servers(config: ExecutorConfig, hash_seed: int, *, native: bool) -> tuple[Process, Process]:
    """The fast and the slow one of a side. `native` False: with the loop in Python even if the one in C is there."""
    return (
        _make(f"fork server {hash_seed}", config.memory_mb, 0, hash_seed, native),
        _make(f"slow fork server {hash_seed}", 2 * config.memory_mb, _NICE, hash_seed, native),
    )


def _make(name: str, memory_mb: int, nice: int, hash_seed: int, native: bool) -> Process:
    script = Path(__file__).with_name("zygote.py")
    arguments = (str(memory_mb), str(nice), "native" if native else "")
    return Process(name, script, arguments, hash_seed=hash_seed, prove=_prove)


async def _prove(ask: Ask) -> None:
    """SandboxUnavailable unless every attack of the self-test is refused, in children like any other."""
    broken: list[str] = []
    for number, probe in enumerate(selftest.PROBES):
        request = frames.REQUEST.pack(selftest.CPU_MS, selftest.WALL_MS, _OUTPUT, 0, number)
        status, _, _ = frames.REPORT.unpack_from(await ask(request, 2 * selftest.WALL_MS / 1000))
        if not selftest.passed(probe, status):
            broken.append(f"{probe.name} (wait status {status})")
    if broken:
        raise SandboxUnavailable(f"self-test: not refused: {', '.join(broken)}")
