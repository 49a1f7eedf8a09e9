"""How reports of shards reach the intake: those that live answer, a dead one is left out."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from ray.exceptions import RayActorError

from azr.reporting import Reporter, ShardReports
from common.ledger import Ledger
from common.messages import Report


def opened() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


@dataclass(eq=False)
class Remote:
    """A shard's handle, as Ray makes them: `handle.report.remote()` is awaited. It answers while `open`."""

    name: str
    dies: bool = False
    running: object = True
    open: asyncio.Event = field(default_factory=opened)
    asked: int = 0

    @property
    def handle(self) -> Remote:
        return self

    @property
    def report(self) -> Remote:
        return self

    async def remote(self) -> Report:
        self.asked += 1
        number = self.asked
        await self.open.wait()
        if self.dies:
            raise RayActorError()
        return Report(self.name, {"run": float(number)})


async def test_shards_that_live_are_asked_and_nobody_else() -> None:
    shards = [Remote("executor-0"), Remote("executor-1", dies=True), Remote("executor-2", running=None)]
    parts = {part.name: part for part in [*shards, Remote("executor-3"), Remote("actor-0", dies=True)]}
    found = await ShardReports().collect(parts)
    assert {report.part for report in found} == {"executor-0", "executor-3"}
    assert await ShardReports().collect({"intake": Remote("intake")}) == []


async def test_an_answer_outlives_whoever_asked_and_counts_once() -> None:
    shard, reports = Remote("executor-0"), ShardReports()
    shard.open.clear()
    parts = {shard.name: shard}
    asking = asyncio.create_task(reports.collect(parts))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert shard.asked == 1
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    others = [asyncio.create_task(reports.collect(parts)) for _ in range(2)]
    await asyncio.sleep(0)
    assert shard.asked == 1  # what is under way is waited for, not asked again
    shard.open.set()
    found = [report for answers in await asyncio.gather(*others) for report in answers]
    assert [report.ledger for report in found] == [{"run": 1.0}]
    assert [report.ledger for report in await reports.collect(parts)] == [{"run": 2.0}]


async def test_a_report_hands_over_the_ledger_and_the_cpu_time() -> None:
    ledger = Ledger("start")
    ledger.enter("train")
    told: list[Report] = []

    async def send(report: Report) -> None:
        told.append(report)

    reporter = Reporter("trainer-0", ledger)
    await reporter.tell(send)
    await reporter.tell(send)
    first, second = told
    assert (first.part, first.state) == ("trainer-0", "train")
    assert first.spans[-1][2] == second.spans[0][1]
    assert set(first.cpu.values()) == {0.0} and second.cpu["process"] >= second.cpu["thread"] > 0.0


def test_a_ledger_of_an_earlier_run_is_told_from_where_it_was() -> None:
    clock = iter([0.0, 5.0, 7.0, 7.0])  # begun; taken over; told, and when that was
    reporter = Reporter("executor-0", Ledger("idle", now=lambda: next(clock)))
    found = reporter.report()
    assert found.ledger == {"idle": 2.0}
    assert found.spans == (("idle", 5.0, 7.0),)
