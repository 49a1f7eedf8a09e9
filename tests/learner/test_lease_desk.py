"""Who waits for leases gets them in the order of asking, if its engine serves the version in force."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.config import AlgorithmConfig, Config, EvalConfig
from common.types import TASK_TYPES, Kind, Lease
from learner.admission import Admission, Limits
from learner.evaluation import Evaluation, Question
from learner.lease_desk import LeaseDesk
from learner.lease_ledger import LeaseLedger
from learner.leases import LeaseMaker, kind_of
from learner.seeding import Seeding
from learner.task_book import TaskBook
from tests.fakes.clock import FakeClock
from tests.fakes.groups import a_group, a_sample, a_task

KIND = Kind.SOLVE_DEDUCTION


class Office:
    """A desk with `size` leases of one kind at each version, open to the actors in `serving`."""

    def __init__(self, folder: Path, size: int = 2) -> None:
        config = Config(algorithm=AlgorithmConfig(proposals=0, solves=size))
        self.book = TaskBook(folder / "tasks.sqlite", [a_task("seed", t) for t in TASK_TYPES], config)
        self.ledger = LeaseLedger(folder / "tasks.sqlite", 0)
        maker = LeaseMaker(config, self.book)
        self.serving = {0, 1, 2}
        self.evaluation = Evaluation([Question(a_task("asked"))], EvalConfig(), 9)
        self.admission = Admission({KIND: size}, Limits(0, 0, 10.0, 9), FakeClock(), self.make(maker), lambda end: None)
        self.desk = LeaseDesk(
            self.admission,
            self.evaluation,
            Seeding(config, self.book),
            maker,
            self.ledger,
            self.serving.__contains__,
            1.0,
        )
        self.order: list[int] = []

    def make(self, maker: LeaseMaker) -> Callable[[int, int], Lease]:
        def made(lease: int, version: int) -> Lease:
            self.ledger.granted(lease, version)
            return maker.make(lease, version)

        return made

    async def ask(self, actor: int, capacity: int = 1) -> asyncio.Task[list[Lease]]:
        task = asyncio.create_task(self.desk.ask(actor, capacity))
        task.add_done_callback(lambda done: self.order.append(actor))
        await asyncio.sleep(0)
        return task

    def answer(self, leases: list[Lease]) -> None:
        for lease in leases:
            self.admission.deliver(a_group(lease.id, lease.kind, [a_sample(lease.kind, version=lease.version)]))

    def next_version(self) -> None:
        assert self.admission.form() is not None
        self.admission.advance(self.admission.version + 1)
        self.desk.version_changed()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    made = Office(tmp_path)
    yield made
    made.ledger.close()
    made.book.close()


async def test_first_come_first_served(office: Office) -> None:
    first = await office.ask(0, 2)
    waiting = [await office.ask(actor) for actor in (2, 0, 1)]
    assert [kind_of(lease.id) for lease in await first] == [KIND, KIND]
    office.answer(first.result())
    office.next_version()
    assert len((await asyncio.gather(*waiting[:2]))[0]) == 1
    assert office.order == [0, 2, 0]
    assert not waiting[2].done()


async def test_an_actor_with_another_version_waits_and_keeps_its_place(office: Office) -> None:
    office.serving.discard(0)
    behind = await office.ask(0)
    leases = [*await (await office.ask(1)), *await (await office.ask(2))]
    late = await office.ask(1)
    office.desk.serve()
    assert not behind.done() and not late.done()
    office.answer(leases)
    office.serving.add(0)
    office.desk.serve()
    assert not behind.done()
    office.next_version()
    await asyncio.gather(behind, late)
    assert office.order == [1, 2, 0, 1]


async def test_whoever_left_takes_nothing(office: Office) -> None:
    leases = await (await office.ask(0, 2))
    gone, waiting = await office.ask(1), await office.ask(2)
    gone.cancel()
    await asyncio.sleep(0)
    office.answer(leases)
    office.next_version()
    assert len(await waiting) == 1
    assert office.ledger.fates() == {"open": 3}


async def test_questions_come_first(office: Office) -> None:
    office.evaluation.begin(0)
    leases = await (await office.ask(0, 9))
    assert [lease.kind for lease in leases] == [Kind.EVAL, KIND, KIND]
    assert office.ledger.fates() == {"open": 3}


async def test_a_closed_desk_sends_everybody_away(office: Office) -> None:
    await (await office.ask(0, 2))
    office.serving.discard(2)
    waiting = [await office.ask(1), await office.ask(2)]
    office.desk.close()
    assert await asyncio.gather(*waiting) == [[], []]
    assert await office.desk.ask(0, 3) == []
