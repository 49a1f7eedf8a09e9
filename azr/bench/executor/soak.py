"""A long run, and what grew in it: memory, descriptors and zombies of every process of a shard."""

from __future__ import annotations

import gc
import itertools
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from azr.bench.executor.load import Job, closed
from azr.bench.executor.meter import Footprint, footprints
from azr.bench.executor.workload import Case, endless
from executor.shard import Shard

_WARM_UP = 0.5  # of the executions that are measured; the allocator takes that long to settle
_ENDLESS_EVERY = 500  # jobs: so that the slow lanes work, too
_REPORTS = 10
_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Growth:
    """Of one process; `starts` beyond 1: it was replaced in between."""

    name: str
    starts: int
    before: Footprint
    after: Footprint


async def soak(shard: Shard, cases: Sequence[Case], executions: int, width: int) -> list[Growth]:
    """Run `executions` (program, input) pairs, in jobs of several inputs, after half as many to warm up."""
    await closed(shard, _jobs("warm-up", shard, cases, math.ceil(executions * _WARM_UP)), width)
    before = _sample(shard)
    await closed(shard, _jobs("soak", shard, cases, executions), width)
    after = _sample(shard)
    starts = {"supervisor": 1} | {process.name: process.starts for process in shard.processes}
    return [Growth(name, starts[name], before[name], after[name]) for name in before]


def _jobs(what: str, shard: Shard, cases: Sequence[Case], executions: int) -> Iterator[Job]:
    start, told = shard.executions, 0
    for number, case in enumerate(itertools.cycle(cases)):
        done = shard.executions - start
        if done >= executions:
            return
        if done * _REPORTS // executions > told:
            told = done * _REPORTS // executions
            print(f"azr: bench: {what}, {done:,} of {executions:,} executions", file=sys.stderr)
        yield endless(number) if number % _ENDLESS_EVERY == _ENDLESS_EVERY - 1 else case.several()


def _sample(shard: Shard) -> dict[str, Footprint]:
    gc.collect()
    pids = {"supervisor": os.getpid()} | {process.name: process.pid or 0 for process in shard.processes}
    found = footprints(pids.values())
    return {name: found[pid] for name, pid in pids.items()}


def table(growths: Sequence[Growth]) -> str:
    head = f"{'process':<22}{'RSS MiB':>18}{'growth':>9}{'PSS MiB':>18}{'growth':>9}{'descriptors':>14}{'zombies':>10}"
    lines = [head]
    for growth in growths:
        before, after = growth.before, growth.after
        name = growth.name if growth.starts == 1 else f"{growth.name} ({growth.starts} starts)"
        cells = _grown(before.rss, after.rss) + _grown(before.pss, after.pss)
        zombies = f"{before.zombies} > {after.zombies}"
        lines.append(f"{name:<22}{cells}{_pair(before.descriptors, after.descriptors):>14}{zombies:>10}")
    return "\n".join(lines)


def _grown(before: int | None, after: int | None) -> str:
    if before is None or after is None:
        return f"{'unreadable':>18}{'':>9}"
    return f"{f'{before / _MIB:.2f} > {after / _MIB:.2f}':>18}{100 * (after - before) / before:>+8.2f}%"


def _pair(before: int | None, after: int | None) -> str:
    return "unreadable" if before is None or after is None else f"{before} > {after}"
