"""What a part tells the intake of itself, every second and at its end: ledger, CPU time, GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ray.exceptions import RayError

from common.cpu_time import CpuTime
from common.gpu_load import Gpus, NoGpus
from common.ledger import Ledger
from common.messages import Report

INTERVAL = 1.0  # seconds
SHARD_PATIENCE = 1.0  # seconds in which a shard that lives has answered


class Reporter:
    """All of it belongs to one thread, whose CPU time is told as `thread`. A ledger that is kept for another run tells
    what it holds since then."""

    def __init__(self, part: str, ledger: Ledger, gpus: Gpus | None = None) -> None:
        self._part, self._ledger, self._gpus = part, ledger, gpus or NoGpus()
        self._cpu = CpuTime()
        self._before, _ = ledger.drain()

    def report(self) -> Report:
        held, spans = self._ledger.drain()
        totals = {state: seconds - self._before.get(state, 0.0) for state, seconds in held.items()}
        gpus = self._gpus.sample(self._ledger.now())
        return Report(self._part, totals, spans, self._ledger.state, gpus=gpus, cpu=self._cpu.read())

    async def tell(self, send: Callable[[Report], Awaitable[object]]) -> None:
        await send(self.report())

    async def run(self, send: Callable[[Report], Awaitable[object]]) -> None:
        """Tell every second, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.tell(send)


class ShardReports:
    """Executor shards as the driver asks them: they serve actors alone and have no line to the intake.

    The driver asks the intake for its view every second anyway and carries their reports along, which takes no role,
    key or connection more. A shard that is asked has handed its time over, so the answer is kept until somebody
    collects it, even if whoever had asked was cancelled.
    """

    def __init__(self) -> None:
        self._asked: dict[asyncio.Future[Report], Any] = {}  # the part each one is of

    async def collect(self, parts: Mapping[str, Any]) -> list[Report]:
        """Of the shards among `parts`; of one that is dead, or does not answer, none."""
        under_way = {id(part) for part in self._asked.values()}
        for name, part in parts.items():
            if name.startswith("executor") and part.running is not None and id(part) not in under_way:
                self._asked[asyncio.ensure_future(awaitable(part.handle.report.remote()))] = part
        if not self._asked:
            return []
        done, _ = await asyncio.wait(self._asked, timeout=SHARD_PATIENCE)
        reports: list[Report] = []
        for answer in done:
            if self._asked.pop(answer, None) is None:
                continue  # somebody else who waited has taken it
            try:
                reports.append(answer.result())
            except RayError:  # whoever supervises it knows
                continue
        return reports


async def awaitable(call: Awaitable[Any]) -> Any:
    """`call`, as a coroutine: references of Ray can be awaited and no more."""
    return await call
