"""Load on a shard. Closed: the next job comes when one is done, which shows what the shard can do. Open: jobs come when
they come, which shows how long they wait; a latency counts from the moment a job was due, so a stall is not hidden by
the jobs it kept from being asked.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from common.jobs import Executor, Validate, Verify
from common.types import Status

Job = Validate | Verify


@dataclass(frozen=True, slots=True)
class Timed:
    """`seconds` from when the job was due to its answer."""

    job: Job
    status: str
    seconds: float


async def closed(executor: Executor, jobs: Iterable[Job], width: int) -> Counter[str]:
    """How often each status came of `jobs`, with `width` in flight."""
    left, statuses = iter(jobs), Counter[str]()
    await asyncio.gather(*[_work(executor, left, statuses) for _ in range(width)])
    return statuses


async def opened(executor: Executor, jobs: Sequence[Job], rate: float, seed: int) -> list[Timed]:
    """All of `jobs`, arriving at random, `rate` a second; equal seeds give equal moments."""
    loop, chance = asyncio.get_running_loop(), random.Random(seed)
    due = loop.time()
    asked = []
    for job in jobs:
        due += chance.expovariate(rate)
        await asyncio.sleep(due - loop.time())
        asked.append(asyncio.create_task(_timed(executor, job, due)))
    return await asyncio.gather(*asked)


async def _work(executor: Executor, left: Iterator[Job], statuses: Counter[str]) -> None:
    for job in left:
        statuses[await ask(executor, job)] += 1


async def _timed(executor: Executor, job: Job, due: float) -> Timed:
    status = await ask(executor, job)
    return Timed(job, status, asyncio.get_running_loop().time() - due)


async def ask(executor: Executor, job: Job) -> str:
    """The status of the job: of an answer that is not ok, if there is one."""
    if isinstance(job, Validate):
        return (await executor.validate(job)).status
    verdicts = (await executor.verify(job)).verdicts
    return next((verdict.status for verdict in verdicts if verdict.status != Status.OK), Status.OK)
