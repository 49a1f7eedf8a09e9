"""How fast the configured engine generates with nothing round it: no leases, no executor, no other process.

It is asked as episodes ask it, through actors/engine.py: so many groups under way, each one prompt after the other,
all samples of a prompt at once. After a run in the same round these are the prompts of that run, and as many groups as
it had under way on average, so that the two rates compare; else those of azr/bench/prompts.py and engine.episodes
groups. The clock runs until as many groups are done as were recorded, others taking their place all the while, and what
completes in its first fifth does not count.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Sequence

from actors import engine as engines
from actors.engine import Engine
from azr.bench.figures import Reading
from azr.bench.loop import SKIPPED, of_run
from azr.bench.part import Job
from azr.bench.prompts import Prompts, drawn, recorded
from azr.environment import environment
from azr.footprint import on_gpus
from common.config import Config
from common.engine import EngineConfig
from common.errors import PartFailed

SECTION = "engine"
_EPISODES = 64  # groups under way where neither a run nor a setting says it
Moment = tuple[float, int]  # seconds, tokens of the request that completed then


def measure(job: Job) -> list[Reading]:
    """PartFailed if the engine fails."""
    config, run = job.config, job.beside("loop") / "run"
    if (run / "summary.json").exists():
        rate = of_run(run)
        groups, under_way = recorded(run), max(1, round(rate.open / rate.engines))
    else:
        groups, under_way = drawn(config) * config.learner.steps, config.engine.episodes or _EPISODES
    os.environ.update(engines.environment(config.engine.threads))  # before torch is imported
    os.environ.update(environment("actor", gpus=on_gpus(config)))
    return asyncio.run(_measured(config, groups, under_way))


async def _measured(config: Config, groups: Sequence[Prompts], under_way: int) -> list[Reading]:
    engine = engines.create(config.engine, config.model)
    began = time.perf_counter()
    await engine.start()
    started = time.perf_counter() - began
    moments = await answered(engine, groups, under_way, config.engine)
    await engine.close()
    return [
        Reading(SECTION, "tokens", "tokens/s", steady(moments)),
        Reading(SECTION, "groups under way", "", under_way),
        Reading(SECTION, "start", "s", started),
    ]


async def answered(engine: Engine, groups: Sequence[Prompts], under_way: int, settings: EngineConfig) -> list[Moment]:
    """Ask for groups in turn, `under_way` at a time, until as many are done as there are; a moment for the begin and
    for each request that completed. PartFailed if the engine dies."""
    moments: list[Moment] = [(time.perf_counter(), 0)]
    waiting, seeds = itertools.cycle(groups), itertools.count()
    missing, done = len(groups), asyncio.Event()

    async def work() -> None:
        nonlocal missing
        while True:
            for prompt, samples in next(waiting):
                longest = min(settings.max_tokens, settings.max_model_len - len(prompt))
                answers = await engine.generate(
                    prompt, n=samples, temperature=1.0, seed=next(seeds), max_tokens=longest
                )
                moments.append((time.perf_counter(), sum(len(answer.tokens) for answer in answers)))
            missing -= 1
            if not missing:
                done.set()

    workers = [asyncio.create_task(work()) for _ in range(under_way)]
    ending = asyncio.create_task(done.wait())
    try:
        await asyncio.wait([ending, *workers], return_when=asyncio.FIRST_COMPLETED)
        for worker in workers:
            if worker.done():
                worker.result()  # raises: they do not end by themselves
    finally:
        for task in (ending, *workers):
            task.cancel()
        await asyncio.gather(ending, *workers, return_exceptions=True)
    return moments


def steady(moments: Sequence[Moment]) -> float:
    """Tokens a second after the first fifth. PartFailed if too little completed."""
    first = moments[0][0] + SKIPPED * (moments[-1][0] - moments[0][0])
    kept = [moment for moment in moments if moment[0] >= first]
    if len(kept) < 2:
        raise PartFailed("engine", "hardly a request completed while it was measured", hint="more learner.steps")
    return sum(tokens for _, tokens in kept[1:]) / (kept[-1][0] - kept[0][0])
