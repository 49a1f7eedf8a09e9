"""When nothing moves: who waits for whom, told once, and the end of the run if that is wanted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from common import messages as m
from common.errors import PartFailed
from common.transport import Peer
from common.types import Kind
from learner.watchdog import Watchdog
from tests.fakes.peers import Stage, small

BOUND, END = 30.0, 50.0


class Watched(Stage):
    """`lazy`: what the engine, or the publisher, leaves undone when it is told."""

    lazy: type | None = None

    def __init__(self, folder: Path, end: float = 0.0, mode: str = "natural") -> None:
        config = small(eta=1)
        patient = replace(config.staleness, lease_timeout=1e6, mode=mode)  # no lease is taken back here
        super().__init__(replace(config, staleness=patient), folder)
        self.front = self.dog = Watchdog(self.intake, self.clock, BOUND, end)

    async def start(self, *actors: int, publishing: bool = True) -> None:
        await self.begin(*actors, publishing=publishing)
        self.watching = self.spawn(self.dog.run())
        await self.settle()

    async def notify(self, peer: Peer, message: object) -> None:
        if self.lazy is None or not isinstance(message, self.lazy):
            await super().notify(peer, message)

    async def report(self, part: str, state: str, *spans: str) -> None:
        role, _, index = part.partition("-")
        pieces = tuple((span, 0.0, 1.0) for span in spans)
        await self.ask(role, int(index), m.Report(part, {}, pieces, state))

    @property
    def told(self) -> str:
        return "\n".join(self.dog.stall)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Watched]:
    made = Watched(tmp_path)
    yield made
    await made.crash()


async def test_exact_staleness_is_told_as_what_holds_the_push(tmp_path: Path) -> None:
    """Batch 0 is trained, and version 1 waits for version 0 to sample batch 1."""
    for mode in ("natural", "exact"):
        (tmp_path / mode).mkdir()
        stage = Watched(tmp_path / mode, mode=mode)
        await stage.start(0)
        await stage.poll("trainer", 0, m.WantShare(0, 0))
        await stage.fulfil(await stage.lease(capacity=6))
        await stage.train(0)
        assert stage.published == ([0, 1] if mode == "natural" else [0])
        await stage.clock.advance(BOUND)
        held = "staleness is exact, and no push goes out before the batch of step 1 is formed"
        assert (held in stage.told) == (mode == "exact")
        await stage.crash()


async def test_an_actor_that_delivers_nothing_is_named_with_what_it_holds(stage: Watched) -> None:
    await stage.start(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    leases = await stage.lease()
    await stage.fulfil([lease for lease in leases[:6] if lease.kind is not Kind.SOLVE_DEDUCTION])
    await stage.report("actor-0", "generate")
    await stage.report("trainer-0", "wait-batch")
    await stage.clock.advance(BOUND - 1)
    assert stage.told == ""
    await stage.clock.advance(1)
    assert stage.intake.admission.holders[0].total() == 7
    lines = stage.dog.stall
    assert lines[0] == "nothing has moved for 30 s; all wait for actor-0"
    assert lines[1].startswith("actor-0: in generate for 30 s, last heard of 30 s ago, holds leases for 1 propose/")
    assert "2 solve/deduction" in lines[1]
    assert (
        lines[2] == "trainer-0: in wait-batch for 30 s, asks for the batch of step 0 for 30 s, last heard of 30 s ago"
    )
    assert lines[3] == "the batch of step 0 lacks 1 solve/deduction"
    assert lines[4] == "version 0 is in force, 0 batches are formed; push: none under way"


async def test_it_is_told_once_for_each_stall(stage: Watched, caplog: pytest.LogCaptureFixture) -> None:
    await stage.start(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    first, second, *_ = await stage.lease()
    await stage.clock.advance(2 * BOUND)
    told = stage.told
    assert told and sum("nothing has moved" in r.message for r in caplog.records) == 1
    await stage.ask("actor", 0, m.Renew((first.id, second.id)))
    await stage.report("actor-0", "generate")
    assert stage.told == told  # neither is a movement
    await stage.fulfil([first])
    assert stage.told == ""
    assert "moves again after 60 s" in caplog.text
    await stage.clock.advance(BOUND)
    assert stage.told and sum("nothing has moved" in r.message for r in caplog.records) == 2


async def test_what_moves_keeps_it_quiet(stage: Watched) -> None:
    await stage.start(0)
    await stage.clock.advance(BOUND - 1)
    await stage.poll("trainer", 0, m.WantShare(0, 0))  # version 0 goes out
    assert stage.published == [0]
    await stage.clock.advance(BOUND - 1)
    leases = await stage.lease(capacity=6)
    await stage.clock.advance(BOUND - 1)
    await stage.fulfil(leases)
    await stage.clock.advance(BOUND - 1)
    await stage.train(0)
    await stage.clock.advance(BOUND - 1)
    assert stage.told == ""
    await stage.clock.advance(1)
    assert stage.told


@pytest.mark.parametrize(("lazy", "what"), [(m.Stage, "stage version 0"), (m.Commit, "load version 0")])
async def test_a_push_that_hangs_names_whom_it_waits_for(stage: Watched, lazy: type, what: str) -> None:
    stage.lazy = lazy
    await stage.start(0, 1)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.clock.advance(BOUND)
    assert "all wait for actor-0, actor-1" in stage.told
    assert f"push: waits for actor-0, actor-1 to {what}" in stage.told
    assert "actor-0: " not in stage.told  # has neither reported nor asked for anything


async def test_a_publisher_that_does_not_ask_or_offer_is_named(stage: Watched) -> None:
    await stage.start(0, publishing=False)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.clock.advance(BOUND)
    assert "push: waits for trainer-0 to ask for a push" in stage.told
    await stage.poll("trainer", 0, m.WantPush())
    assert stage.intake.weights.pending.parts == ("trainer-0",)
    assert str(stage.intake.weights.pending) == "waits for trainer-0 to offer version 0"


async def test_a_learner_that_does_not_come_back_is_named(stage: Watched) -> None:
    await stage.start(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.fulfil((await stage.lease())[:12])
    await stage.report("trainer-0", "train", "wait-batch", "train")
    await stage.poll("actor", 0, m.WantLeases(9))
    await stage.clock.advance(BOUND / 2)
    await stage.report("trainer-0", "train", "train")
    await stage.clock.advance(BOUND / 2)
    assert "all wait for trainer-0" in stage.told
    assert "trainer-0: in train for 30 s" in stage.told
    assert "actor-0: asks for 9 leases for 30 s" in stage.told


async def test_actors_that_wait_for_the_executor_point_to_it(stage: Watched) -> None:
    await stage.start(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.lease(capacity=2)
    await stage.report("actor-0", "wait-executor")
    await stage.clock.advance(BOUND)
    assert "all wait for the executor, for which actor-0 waits" in stage.told


async def test_leases_that_nobody_takes_are_told(stage: Watched) -> None:
    await stage.start(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.lease(capacity=2)
    await stage.report("actor-0", "generate")
    stage.leave(0)
    await stage.clock.advance(BOUND)
    assert "nobody has taken 1 propose/" in stage.told and "that were given back" in stage.told
    assert "actor-0" not in stage.told


async def test_after_the_second_bound_the_run_ends_by_name(tmp_path: Path) -> None:
    stage = Watched(tmp_path, end=END)
    await stage.start(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.lease(capacity=1)
    await stage.clock.advance(END - 1)
    assert not stage.watching.done()
    await stage.clock.advance(1)
    with pytest.raises(
        PartFailed, match=r"actor-0: nothing has moved for 50 s:\n    actor-0: holds leases for 1 "
    ) as caught:
        await asyncio.wait_for(stage.watching, 1.0)
    assert caught.value.part == "actor-0" and "cluster.watchdog_end" in caught.value.hint
    await stage.crash()


async def test_without_bounds_it_only_passes_on(tmp_path: Path) -> None:
    stage = Watched(tmp_path)
    stage.front = stage.dog = Watchdog(stage.intake, stage.clock, 0.0, 0.0)
    await stage.start(0)
    await stage.clock.advance(10_000.0)
    assert stage.told == "" and not stage.watching.done()
    await stage.crash()
