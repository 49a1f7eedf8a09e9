"""`azr execute --bench`: what the executor costs and how fast it is, with the programs of a file of rows.

Nothing is remembered by the shards that are measured, so each job is run. Measurements are repeated in turn, and a
figure is the median of its repeats beside the least and the most. Targets are printed for comparison; missing one is
no error. CPU times are the figures to compare: rates and latencies depend on what else the machine does.

Not measured: the transport between actors and shards, and more than one shard at a time.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import platform
import random
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from azr.bench.executor import parts, soak, whole
from azr.bench.executor.workload import ANSWERS, INPUTS, Case, cases
from azr.bench.figures import Figure, Reading, collect, table
from azr.execute import started
from azr.machine import inspect
from azr.rows import Row
from common.config import ExecutorConfig
from common.errors import ConfigError
from executor.shard import Shard

REPEATS = 5
_ROWS = 400  # programs at most; a sample of a longer file
_SEVERAL = 4  # as many fewer jobs where one is several executions
_SEED = 0
_SUBSHELLS = 1000
_IN_C = "fork server + child, fork loop in C"
_COMPANY = f"{ExecutorConfig().together} programs in a child"
TARGETS = {
    (_IN_C, "1 input: CPU, mean"): "<= 1.0",
    (_IN_C, f"{INPUTS} inputs x {parts.RUNS}: executions"): ">= 13,000",
    (_IN_C, f"{_COMPANY}, 1 input: CPU per program"): "<= 1.0",
    (_IN_C, f"{_COMPANY}, {INPUTS} inputs x {parts.RUNS}: executions"): ">= 13,000",
    (whole.LATENCY, "p99 beside loops / without"): "<= 3",
}


def bench(rows: Sequence[Row], config: ExecutorConfig, *, executions: int, out: Path | None) -> int:
    """Measure, print tables, write them to `out` as JSON. `executions` 0: no soak. ConfigError if no row runs or
    `out` cannot be written."""
    if out is not None:
        try:
            out.touch()  # now rather than after minutes of measuring
        except OSError as error:
            raise ConfigError(f"cannot write {out}: {error.strerror}") from error
    config = dataclasses.replace(config, cache=0, store="")
    figures, growths = asyncio.run(_bench(rows, config, executions))
    print(table(figures))
    if growths:
        print(f"\nbefore > after {executions:,} executions\n{soak.table(growths)}")
    if out is not None:
        result = {
            "machine": _machine(),
            "executor": dataclasses.asdict(config),
            "figures": [dataclasses.asdict(figure) | {"median": figure.median} for figure in figures],
            "soak": {"executions": executions, "processes": [dataclasses.asdict(growth) for growth in growths]},
        }
        out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 0


async def _bench(
    rows: Sequence[Row], config: ExecutorConfig, executions: int
) -> tuple[list[Figure], list[soak.Growth]]:
    shards = [Shard(config), Shard(config, native=False)]
    async with started(shards):
        if not shards[0].sides[0].processes[0].native:
            _tell("no fork loop in C here: build it, or read the figures as those of the one in Python")
            await shards.pop(0).close()
        _tell(f"looking at {len(rows)} rows")
        found = await cases(rows, shards[0])
        if not found:
            raise ConfigError("no program of these rows gives a value for its first input: there is nothing to measure")
        found = random.Random(_SEED).sample(found, min(_ROWS, len(found)))
        readings: list[Reading] = []
        for repeat in range(REPEATS):
            _tell(f"costs, {repeat + 1} of {REPEATS}")
            readings += await _costs(shards, found, config)
        rates = [
            reading.value for reading in readings if (reading.section, reading.what) == (_section(shards[0]), "jobs")
        ]
        for repeat in range(REPEATS):
            _tell(f"latency, {repeat + 1} of {REPEATS}")
            readings += await whole.latencies(shards[0], found, statistics.median(rates), seed=repeat)
        growths = await soak.soak(shards[0], found, executions, config.credits) if executions else []
        return collect(readings, TARGETS), growths


async def _costs(shards: Sequence[Shard], found: Sequence[Case], config: ExecutorConfig) -> list[Reading]:
    """One repeat of everything that is not a latency."""
    readings = parts.subshells(_SUBSHELLS)
    programs = await parts.compiled(found, shards[0].reader)
    for shard in shards:
        readings += await parts.forks(shard.sides[0].processes[0], programs, config)
    readings += await parts.checker(shards[0].reader, found)
    for shard in shards:
        readings += await whole.costs(_section(shard), shard, [case.single() for case in found], config.credits)
    few = found[::_SEVERAL]
    for section, jobs in (
        (f"shard: validate, {INPUTS} inputs", [case.several() for case in few]),
        (f"shard: verify, deduction, {ANSWERS} answers", [case.deduction() for case in few]),
        (f"shard: verify, abduction, {ANSWERS} answers", [case.abduction() for case in few]),
        (f"shard: verify, induction, {ANSWERS} answers", [case.induction() for case in few]),
    ):
        readings += await whole.costs(section, shards[0], jobs, config.credits)
    return readings


def _section(shard: Shard) -> str:
    loop = "in C" if shard.sides[0].processes[0].native else "in Python"
    return f"shard: validate, 1 input, fork loop {loop}"


def _machine() -> dict[str, object]:
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": inspect().cores,
        "load": os.getloadavg(),
    }


def _tell(what: str) -> None:
    print(f"azr: bench: {what}", file=sys.stderr)
