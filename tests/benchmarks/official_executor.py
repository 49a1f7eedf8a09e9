"""Our executor beside the official one of Absolute Zero: the same work, in one run, on one machine.

    python -m tests.benchmarks.official_executor ROWS.jsonl --official CHECKOUT [--shards 1 2] [--repeats 3]

ROWS.jsonl: {"code", "input"} a line, as CRUXEval has them. CHECKOUT: a clone of LeapLabTHU/Absolute-Zero-Reasoner at
any place; what its executor imports must be on PYTHONPATH, for example after
`pip install --target DIR pebble==5.1.1 timeout_decorator regex tqdm python-dateutil`. It has no sandbox: on its side
the programs of ROWS.jsonl run with your rights.

The official side makes its calls as its trainer does: one after the other, one executor object, 10 seconds a call. Ours
gets the jobs that episodes make, several in flight, over shards in this process. Repeats alternate between the systems;
starting is not counted, and nothing is remembered from one measurement to the next. A call that never ends costs the
official side its time-out: a few are made, the others are counted at the median of those, and the output says so.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import json
import os
import platform
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from pathlib import Path
from types import ModuleType

from azr.bench.executor.meter import cpu
from azr.rows import read
from common.config import ExecutorConfig
from common.errors import AzrError
from common.jobs import Validate, Verify
from common.types import Status, TaskType
from executor.pool import order
from executor.shard import Shard
from tests.benchmarks.official import Official, load
from tests.benchmarks.training_step import ENDLESS, WARM, Episode, Material, materials, training_step, with_loops

_CONFIG = ExecutorConfig(cpu_limit=1.0)
_IN_FLIGHT = 64
_TIMEOUTS = 3  # calls that are really let run into it
_SEED = 0

System = tuple[int, int]  # our shards, and jobs in flight
OFFICIAL: System = (0, 1)
Verdicts = list[list[bool]]  # per episode: whether its proposal is valid, if it has one, then of each answer


@dataclass(frozen=True, slots=True)
class Work:
    name: str
    episodes: list[Episode]
    widths: tuple[int, ...] = (_IN_FLIGHT,)  # jobs in flight on our side
    goal: float = 0.0  # times less wall time than the official executor


@dataclass(slots=True)
class Result:
    """Of one system at one work. Seconds, per repeat; `cpu` by process and `verdicts` are those of the last repeat."""

    walls: list[float] = field(default_factory=list)
    counted: float = 0.0  # of each wall, for calls that were not made
    cpu: dict[str, float] = field(default_factory=dict)
    verdicts: Verdicts = field(default_factory=list)


def _official(module: ModuleType, episodes: Sequence[Episode], timeout_cost: float, result: Result) -> None:
    official = Official(module, timeout_cost)
    try:
        with _metered(result), contextlib.redirect_stdout(io.StringIO()):
            result.verdicts = [official.run(episode) for episode in episodes]
    finally:
        official.close()
    result.counted = official.counted
    result.walls[-1] += official.counted


async def _ours(episodes: Sequence[Episode], shards: int, width: int, result: Result) -> None:
    pool = [Shard(_CONFIG) for _ in range(shards)]
    found: Verdicts = [[] for _ in episodes]
    left = iter(enumerate(episodes))

    async def work() -> None:
        for number, episode in left:
            found[number] = await _episode(pool[order(episode.task.program, shards)[0]], episode)

    try:
        for shard in pool:
            await shard.start()
            await shard.validate(Validate(WARM, ("1",)))
        with _metered(result):
            await asyncio.gather(*[work() for _ in range(width)])
    finally:
        for shard in pool:
            await shard.close()
    result.verdicts = found


async def _episode(shard: Shard, episode: Episode) -> list[bool]:
    task, verdicts, statuses = episode.task, [], []
    if episode.proposes:
        validation = await shard.validate(Validate(task.program, task.inputs))
        verdicts.append(validation.status == Status.OK)
        statuses.append(validation.status)
    if episode.answers and all(verdicts):
        judged = (await shard.verify(Verify(task, episode.answers))).verdicts
        verdicts += [verdict.correct for verdict in judged]
        statuses += [verdict.status for verdict in judged]
    if Status.INFRA in statuses:
        raise AzrError("the executor failed during the measurement; nothing of it counts")
    return verdicts


@contextlib.contextmanager
def _metered(result: Result) -> Iterator[None]:
    before, start = _cpu(), time.perf_counter()
    yield
    result.walls.append(time.perf_counter() - start)
    result.cpu = {name: used - before.get(name, 0.0) for name, used in _cpu().items()}


def _cpu() -> dict[str, float]:
    """Seconds used so far by this process and its children, these by the script they run."""
    used: dict[str, float] = {"this process": time.process_time()}
    for children in Path("/proc/self/task").glob("*/children"):
        for pid in children.read_text().split():
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
            script = next((word for word in words if word.endswith(".py")), "worker")
            used[Path(script).stem] = used.get(Path(script).stem, 0.0) + cpu(int(pid))
    return used


def _works(found: Sequence[Material], right: float, loops: float) -> list[Work]:
    step = training_step(found, right, _SEED)
    proposals = [replace(episode, answers=()) for episode in step if episode.proposes]
    checks = [episode for episode in proposals if episode.task.type is not TaskType.INDUCTION]
    tens = [episode for episode in proposals if episode.task.type is TaskType.INDUCTION]
    works = [
        Work(f"{len(checks)} checks of one input", checks, (1, _IN_FLIGHT)),
        Work(f"{len(tens)} checks of {len(tens[0].task.inputs)} inputs", tens, (1, _IN_FLIGHT)),
        Work(f"step of {sum(e.calls for e in step)} calls", step, goal=6),
    ]
    if loops:
        works.append(Work(f"same, {loops:.1%} endless", with_loops(step, loops, _SEED), goal=15))
    return works


def _timeout(module: ModuleType) -> float:
    """Seconds that a call to a program which never ends costs the official trainer."""
    official, result = Official(module), Result()
    try:
        for _ in range(_TIMEOUTS):
            with _metered(result):
                official.valid(ENDLESS, "1")
    finally:
        official.close()
    return statistics.median(result.walls)


async def _materials(path: str) -> list[Material]:
    shard = Shard(_CONFIG)
    try:
        await shard.start()
        return await materials(read(path), shard)
    finally:
        await shard.close()


def _measure(work: Work, results: dict[System, Result], module: ModuleType, timeout_cost: float) -> None:
    """One repeat of every system."""
    _official(module, work.episodes, timeout_cost, results[OFFICIAL])
    for system, result in results.items():
        if system is not OFFICIAL:
            asyncio.run(_ours(work.episodes, *system, result))


def _line(work: Work, system: System, result: Result, official: Result) -> str:
    name = "official" if system is OFFICIAL else f"{system[0]} shard(s), {system[1]} in flight"
    ratio = statistics.median([theirs / own for theirs, own in zip(official.walls, result.walls, strict=True)])
    pairs = [p for a, b in zip(result.verdicts, official.verdicts, strict=True) for p in zip_longest(a, b)]
    notes = [f"{sum(a == b for a, b in pairs)}/{len(pairs)} verdicts as the official ones"]
    if work.goal and system is not OFFICIAL:
        notes.append(f"goal {work.goal:.0f}x {'met' if ratio >= work.goal else 'MISSED'}")
    if result.counted:
        notes.append(f"{result.counted:.1f} s COMPUTED, for calls that were not made")
    notes.append("CPU s: " + ", ".join([f"{part} {used:.2f}" for part, used in result.cpu.items()]))
    spread = f"{min(result.walls):.3f}-{max(result.walls):.3f}"
    figures = f"{statistics.median(result.walls):9.3f} {spread:>17} {ratio:8.2f}x"
    return f"{work.name:24} {name:25} {figures}  {'; '.join(notes)}"


def main() -> None:
    parser = argparse.ArgumentParser(description="our executor beside the official one of Absolute Zero")
    parser.add_argument("rows", help='programs: {"code": ..., "input": ...} a line')
    parser.add_argument("--official", type=Path, required=True, help="clone of LeapLabTHU/Absolute-Zero-Reasoner")
    parser.add_argument("--shards", type=int, nargs="+", default=[1, 2], help="numbers of shards to measure with")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--right", type=float, default=0.5, help="share of right answers")
    parser.add_argument("--loops", type=float, default=0.01, help="share of endless calls in the last work; 0: without")
    parser.add_argument("--json", type=Path, help="also write all figures to this file")
    asked = parser.parse_args()
    try:
        module = load(asked.official)
    except ImportError as error:
        parser.error(f"{error}: see the head of this file for what --official and PYTHONPATH have to hold")
    try:
        found = asyncio.run(_materials(asked.rows))
    except AzrError as error:
        parser.error(str(error))
    if not found:
        parser.error(f"{asked.rows}: no row has an input that can be changed in enough ways")
    cost = _timeout(module) if asked.loops else 0.0
    table: list[tuple[Work, dict[System, Result]]] = []
    for work in _works(found, asked.right, asked.loops):
        ours = [(n, width) for width in work.widths for n in (asked.shards if width > 1 else [1])]
        table.append((work, {system: Result() for system in (OFFICIAL, *ours)}))
    for _ in range(asked.repeats):
        for work, results in table:
            _measure(work, results, module, cost)
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    print(f"{len(found)} programs; a call that never ends costs the official side {cost:.2f} s (0: not measured)")
    print(f"{'':50} median s {'spread':>17} official/")
    for work, results in table:
        for system, result in results.items():
            print(_line(work, system, result, results[OFFICIAL]))
    if asked.json:
        rows = [
            {
                "work": work.name,
                "shards": n,
                "in_flight": width,
                "wall_s": r.walls,
                "computed_s": r.counted,
                "cpu_s": r.cpu,
            }
            for work, results in table
            for (n, width), r in results.items()
        ]
        asked.json.write_text(json.dumps(rows))  # 0 shards: the official executor


if __name__ == "__main__":
    main()
