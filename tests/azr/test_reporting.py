"""How reports of shards reach the intake: those that live answer, a dead one is left out."""

from __future__ import annotations

from dataclasses import dataclass

from ray.exceptions import RayActorError

from azr.reporting import Reporter, of_shards
from common.ledger import Ledger
from common.messages import Report


@dataclass
class Remote:
    """A shard's handle, as Ray makes them: `handle.report.remote()` is awaited."""

    name: str
    dies: bool = False
    running: object = True

    @property
    def handle(self) -> Remote:
        return self

    @property
    def report(self) -> Remote:
        return self

    async def remote(self) -> Report:
        if self.dies:
            raise RayActorError()
        return Report(self.name)


async def test_shards_that_live_are_asked_and_nobody_else() -> None:
    shards = [Remote("executor-0"), Remote("executor-1", dies=True), Remote("executor-2", running=None)]
    parts = {part.name: part for part in [*shards, Remote("executor-3"), Remote("actor-0", dies=True)]}
    assert {report.part for report in await of_shards(parts)} == {"executor-0", "executor-3"}
    assert await of_shards({"intake": Remote("intake")}) == []


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
    assert second.cpu["process"] >= second.cpu["thread"] > 0.0
