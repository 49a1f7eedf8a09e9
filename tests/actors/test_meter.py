"""Which state an actor is in, second by second, on a clock that the test moves."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack

import numpy as np
import pytest

from actors.meter import Meter
from common.jobs import Validate, Verify
from common.ledger import Ledger
from common.push_span import PushSpan
from common.types import Status
from tests.fakes.clock import FakeClock
from tests.fakes.engine import FakeEngine
from tests.fakes.executor import FakeExecutor
from tests.fakes.intake import SAFETY_NET, a_task

PROMPT = np.arange(1, 4, dtype=np.int32)


class Measured:
    def __init__(self, engine: FakeEngine | None = None) -> None:
        self.clock = FakeClock()
        self.ledger = Ledger("wait-lease", now=self.clock.now)
        self.engine = engine or FakeEngine(lambda prompt, i: "abc" * (i + 1))
        self.executor = FakeExecutor()
        self.meter = Meter(self.engine, self.executor, self.ledger)

    def generate(self) -> asyncio.Task[object]:
        return asyncio.create_task(self.meter.generate(PROMPT, n=2, temperature=1.0, seed=1, max_tokens=9))


async def test_a_phase_of_a_push_ends_when_it_is_told_and_is_handed_over_once() -> None:
    measured = Measured()
    await measured.clock.advance(10.0)
    measured.meter.pushed("stage", 3, 4.0, tokens=7)
    now = measured.ledger.now()
    assert measured.meter.drain_pushes() == (PushSpan("stage", 3, now - 4.0, 4.0, 7),)
    assert measured.meter.drain_pushes() == ()


@pytest.mark.parametrize(
    ("running", "state"),
    [
        ([], "wait-lease"),
        (["episode"], "idle"),
        (["episode", "executor"], "wait-executor"),
        (["episode", "executor", "generate"], "generate"),
        (["episode", "executor", "generate", "pause"], "weight-pause"),
        (["pause"], "weight-pause"),
        (["episode", "generate", "generate"], "generate"),
    ],
)
def test_the_first_state_that_holds(running: list[str], state: str) -> None:
    measured = Measured()
    with ExitStack() as stack:
        for what in running:
            stack.enter_context(measured.meter.during(what))
        assert measured.ledger.state == measured.meter.state == state
    assert measured.ledger.state == "wait-lease"


async def test_states_sum_to_the_time_that_passed() -> None:
    measured = Measured()
    clock, meter = measured.clock, measured.meter
    await clock.advance(1.0)
    with meter.during("episode"):
        await clock.advance(2.0)
        with meter.during("generate"):
            await clock.advance(4.0)
            with meter.during("pause"):
                await clock.advance(8.0)
            with meter.during("executor"):
                await clock.advance(16.0)
        await clock.advance(32.0)
    totals, spans = measured.ledger.drain()
    assert totals == {"wait-lease": 1.0, "idle": 34.0, "generate": 20.0, "weight-pause": 8.0}
    assert sum(totals.values()) == clock.now()
    assert [end for _, _, end in spans][:-1] == [begin for _, begin, _ in spans][1:]


async def test_tokens_are_counted_when_a_request_completes() -> None:
    measured = Measured()
    measured.engine.open.clear()
    work = measured.generate()
    await measured.clock.advance(3.0)
    assert measured.ledger.state == "generate" and measured.meter.drain_produced() == ()
    measured.engine.open.set()
    await asyncio.wait_for(work, SAFETY_NET)
    assert measured.meter.drain_produced() == ((3.0, 4 + 7),)
    assert measured.meter.drain_produced() == ()
    assert measured.ledger.state == "wait-lease"


async def test_begins_and_ends_are_told_with_the_samples_in_flight() -> None:
    measured, told = Measured(), list[tuple[str, int]]()
    meter = Meter(
        measured.engine,
        measured.executor,
        measured.ledger,
        lambda: told.append(("end", meter.samples)),
        lambda: told.append(("begin", meter.samples)),
    )
    with meter.during("episode"):
        await meter.generate(PROMPT, n=2, temperature=1.0, seed=1, max_tokens=9)
    assert told == [("begin", 0), ("begin", 2), ("end", 0), ("end", 0)]


async def test_a_cancelled_request_counts_nothing_and_ends_its_state() -> None:
    measured = Measured()
    measured.engine.open.clear()
    work = measured.generate()
    await measured.clock.advance(1.0)
    work.cancel()
    await measured.clock.advance(0.0)
    assert work.cancelled()
    assert measured.meter.drain_produced() == () and measured.ledger.state == "wait-lease"


async def test_what_a_cancelled_request_cost_is_kept_apart() -> None:
    """Beside one of 2 samples that runs for 5 s and is answered, one of 2 is cancelled after 1 s."""
    measured = Measured()
    measured.engine.open.clear()
    answered = measured.generate()
    await measured.clock.advance(0.0)
    cancelled = measured.generate()
    await measured.clock.advance(1.0)
    cancelled.cancel()
    await measured.clock.advance(4.0)
    measured.engine.open.set()
    await asyncio.wait_for(answered, SAFETY_NET)
    costs = measured.meter.costs.drain()
    assert (costs["generate"], costs["generate/seconds"], costs["generate/lost"]) == (1, 5.0, 1.0)
    assert (costs["generate/samples"], costs["generate/samples_seconds"]) == (2, 10.0)
    assert costs["generate/area"] == (4 + 2) / 2 * 1.0 - 2 * 1.0 + (2 + 0) / 2 * 4.0


async def test_every_end_is_told_when_it_has_happened() -> None:
    measured, told = Measured(), list[int]()
    meter = Meter(measured.engine, measured.executor, measured.ledger, lambda: told.append(measured.executor.room))
    everything = measured.executor.room
    await meter.validate(Validate("p", ("1",)))
    assert told == [everything]
    measured.executor.open.clear()
    job = asyncio.create_task(meter.verify(Verify(a_task(), ("4",))))
    await measured.clock.advance(0.0)
    assert measured.executor.room == everything - 1 and told == [everything]
    job.cancel()
    await measured.clock.advance(0.0)
    assert job.cancelled() and told == [everything] * 2


async def test_jobs_go_to_the_executor_and_back() -> None:
    measured = Measured()
    validate, verify = Validate("p", ("1",)), Verify(a_task(), ("4", "5"))
    assert (await measured.meter.validate(validate)).status == Status.OK
    assert [v.correct for v in (await measured.meter.verify(verify)).verdicts] == [True, False]
    assert (measured.executor.validated, measured.executor.verified) == ([validate], [verify])
    assert measured.ledger.state == "wait-lease"
