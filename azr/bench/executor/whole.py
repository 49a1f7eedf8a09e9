"""A shard as its clients meet it: what a job costs in each layer, and how long others wait while some loop for ever."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from azr.bench.executor import meter
from azr.bench.executor.load import Job, closed, opened
from azr.bench.executor.workload import Case, endless
from azr.bench.figures import Reading, percentile
from common.errors import PartFailed
from common.types import Status
from executor.shard import Shard

LOOPING = 0.05  # of all jobs
LOAD = 0.5  # of the capacity
LATENCY = f"latency at {LOAD:.0%} of capacity, {LOOPING:.0%} of jobs loop"
_SECONDS = 5.0  # of arrivals


@dataclass(frozen=True, slots=True)
class Layers:
    """CPU seconds so far. `servers` with all their children; `supervisor` with the load generator, which is this
    process, too."""

    supervisor: float
    checker: float
    servers: float

    @classmethod
    def of(cls, shard: Shard) -> Layers:
        checker, *servers = [process.pid for process in shard.processes]
        return cls(time.process_time(), meter.cpu(checker or 0), sum(meter.cpu(pid or 0) for pid in servers))


async def costs(section: str, shard: Shard, jobs: Sequence[Job], width: int) -> list[Reading]:
    """Of jobs that are asked `width` at a time. PartFailed if a process of the shard had to be replaced."""
    pids, executions = [process.pid for process in shard.processes], shard.executions
    before, start = Layers.of(shard), time.perf_counter()
    statuses = await closed(shard, jobs, width)
    seconds = time.perf_counter() - start
    if [process.pid for process in shard.processes] != pids:
        raise PartFailed("executor", "a process died and was replaced during the measurement")
    after, count = Layers.of(shard), len(jobs)
    layers = (
        ("supervisor", after.supervisor - before.supervisor),
        ("checker", after.checker - before.checker),
        ("fork servers", after.servers - before.servers),
    )
    return [
        Reading(section, "jobs", "/s", count / seconds),
        Reading(section, "executions", "/s", (shard.executions - executions) / seconds),
        *[Reading(section, f"CPU per job, {layer}", "ms", spent / count * 1e3) for layer, spent in layers],
        Reading(section, "CPU per job", "ms", sum(spent for _, spent in layers) / count * 1e3),
        Reading(section, "jobs that were not ok", "%", 100 * (count - statuses[Status.OK]) / count),
    ]


async def latencies(shard: Shard, cases: Sequence[Case], capacity: float, seed: int) -> list[Reading]:
    """Of jobs that end, at random moments of equal rate: alone first, then while LOOPING of all jobs never end.

    `capacity`: jobs/s of which LOAD arrive. Returns when the loops have been judged, too.
    """
    rate = LOAD * capacity
    chance = random.Random(seed)
    jobs: list[Job] = [chance.choice(cases).single() for _ in range(max(len(cases), round(rate * _SECONDS)))]
    looping = {place: endless(place) for place in chance.sample(range(len(jobs)), round(LOOPING * len(jobs)))}
    mixed = [looping.get(place, job) for place, job in enumerate(jobs)]
    alone = [timed.seconds for timed in await opened(shard, jobs, rate, seed)]
    both = await opened(shard, mixed, rate, seed)
    beside = [timed.seconds for place, timed in enumerate(both) if place not in looping]
    loops = [timed.seconds for place, timed in enumerate(both) if place in looping]
    return [
        Reading(LATENCY, "arrivals", "/s", rate),
        Reading(LATENCY, "no loops: p50", "ms", statistics.median(alone) * 1e3),
        Reading(LATENCY, "no loops: p99", "ms", percentile(alone, 0.99) * 1e3),
        Reading(LATENCY, "beside loops: p50", "ms", statistics.median(beside) * 1e3),
        Reading(LATENCY, "beside loops: p99", "ms", percentile(beside, 0.99) * 1e3),
        Reading(LATENCY, "p50 beside loops / without", "x", statistics.median(beside) / statistics.median(alone)),
        Reading(LATENCY, "p99 beside loops / without", "x", percentile(beside, 0.99) / percentile(alone, 0.99)),
        Reading(LATENCY, "the loops themselves: p50", "ms", statistics.median(loops) * 1e3),
        Reading(LATENCY, "clean jobs that were not ok", "", sum(t.status != Status.OK for t in both) - len(loops)),
    ]
