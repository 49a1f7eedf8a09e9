"""What a part tells the intake of itself, every second and at its end: ledger, CPU time, GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ray.exceptions import RayError

from common import cpu_time
from common.gpu_load import Gpus, NoGpus
from common.ledger import Ledger
from common.messages import Report

INTERVAL = 1.0  # seconds
SHARD_PATIENCE = 1.0  # seconds in which a shard that lives has answered


class Reporter:
    """All of it belongs to one thread, whose CPU time is told as `thread`."""

    def __init__(self, part: str, ledger: Ledger, gpus: Gpus | None = None) -> None:
        self._part, self._ledger, self._gpus = part, ledger, gpus or NoGpus()

    def report(self) -> Report:
        totals, spans = self._ledger.drain()
        gpus = self._gpus.sample(self._ledger.now())
        return Report(self._part, totals, spans, self._ledger.state, gpus=gpus, cpu=cpu_time.seconds())

    async def tell(self, send: Callable[[Report], Awaitable[object]]) -> None:
        await send(self.report())

    async def run(self, send: Callable[[Report], Awaitable[object]]) -> None:
        """Tell every second, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.tell(send)


async def of_shards(parts: Mapping[str, Any]) -> list[Report]:
    """Reports of the executor shards among `parts`; of one that is dead, or does not answer, none.

    Shards serve actors alone and have no line to the intake. The driver, which asks the intake for its view every
    second anyway, carries their reports along: no role, key or connection more.
    """
    asked = [
        asyncio.ensure_future(_awaitable(part.handle.report.remote()))
        for name, part in parts.items()
        if name.startswith("executor") and part.running is not None
    ]
    if not asked:
        return []
    done, late = await asyncio.wait(asked, timeout=SHARD_PATIENCE)
    for task in late:
        task.cancel()
    reports: list[Report] = []
    for task in done:
        try:
            reports.append(task.result())
        except RayError:  # whoever supervises it knows
            continue
    return reports


async def _awaitable(call: Awaitable[Any]) -> Any:
    return await call
