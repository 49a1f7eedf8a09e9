"""A whole actor between a scripted engine and a fake intake, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable

import numpy as np
import pytest

from actors.actor import REPORT_INTERVAL, RolloutActor
from actors.triplets import PythonTriplets
from actors.window import PERIOD
from common import messages as m
from common.config import Config, EnvironmentConfig
from common.engine import EngineConfig
from common.errors import PartFailed
from common.gpu_load import GpuLoad
from common.jobs import Verdict
from common.ledger import Ledger
from common.staleness import StalenessConfig
from common.types import Kind, Task
from tests.fakes.clock import FakeClock
from tests.fakes.engine import CharCodec, FakeEngine
from tests.fakes.executor import FakeExecutor, by_output
from tests.fakes.intake import SAFETY_NET, FakeIntake, proposing, solving

LEASE_TIMEOUT = 40.0
EPISODES = 3
PROPOSAL = "<answer>def f(a):\n return a*2\ninput:5</answer>"


def respond(prompt: str, sample: int) -> str:
    return PROPOSAL if prompt.startswith("propose") else "<answer>4</answer>"


class OneGpu:
    def sample(self, at: float) -> tuple[GpuLoad, ...]:
        return (GpuLoad(at, 0, 0.5, 1 << 30),)


class Scene:
    """An actor that runs, with everything round it."""

    def __init__(
        self,
        verify: Callable[[Task, str], Verdict] = by_output,
        *,
        episodes: int = EPISODES,
        credits: int = 1000,
        slots: int = 128,
    ) -> None:
        self.config = Config(
            environment=EnvironmentConfig(reject_identity=False, reject_constant=False),
            engine=EngineConfig(episodes=episodes, max_num_seqs=slots),
            staleness=StalenessConfig(lease_timeout=LEASE_TIMEOUT),
        )
        self.clock, self.intake, self.engine = FakeClock(), FakeIntake(), FakeEngine(respond)
        self.executor = FakeExecutor(verify=verify, credits=credits)
        self.ledger = Ledger("wait-lease", now=self.clock.now)
        actor = RolloutActor(
            4,
            self.config,
            self.engine,
            self.executor,
            PythonTriplets(self.config.environment),
            CharCodec(),
            self.intake.dial,
            self.ledger,
            self.clock,
            OneGpu(),
        )
        self.run = asyncio.create_task(actor.run())

    async def stop(self, reason: str = "the run is over") -> None:
        """Raises what the actor ends with."""
        self.intake.notify(m.Stop(reason))
        await self.over()

    async def over(self) -> None:
        await asyncio.wait_for(self.run, SAFETY_NET)

    async def settle(self) -> None:
        """Let everything run that waits for nothing but a turn of the loop."""
        await self.clock.advance(0.0)


def push(version: int, epoch: int = 1) -> m.Stage:
    return m.Stage(epoch, version, "127.0.0.1", 9, 1, 2, (), "", 1.0)


# -- episodes ----------------------------------------------------------------------------------------------------


async def test_leases_become_groups() -> None:
    scene = Scene()
    await scene.intake.grant(solving(1), proposing(2))
    await scene.intake.until(m.Deliver, 2)
    assert {(g.lease, g.kind) for g in scene.intake.delivered} == {
        (1, Kind.SOLVE_DEDUCTION),
        (2, Kind.PROPOSE_DEDUCTION),
    }
    assert all(g.failure == "" for g in scene.intake.delivered)
    await scene.stop()


async def test_a_task_that_the_book_knows_is_not_solved() -> None:
    first, second = Scene(), Scene()
    await first.intake.grant(proposing(1))
    (deliver,) = await first.intake.until(m.Deliver)
    assert deliver.group.proposal is not None
    second.intake.rejected[deliver.group.proposal.key] = "known"
    await second.intake.grant(proposing(1))
    (deliver,) = await second.intake.until(m.Deliver)
    assert deliver.group.proposal is None and deliver.group.samples[0].status == "known"
    assert [len(scene.engine.calls) for scene in (first, second)] == [2, 1]
    await first.stop()
    await second.stop()


async def test_no_more_episodes_are_open_than_allowed() -> None:
    scene = Scene()
    scene.engine.open.clear()
    await scene.intake.grant(*(solving(i) for i in range(5)))
    await scene.settle()
    assert scene.intake.of(m.WantLeases) == [m.WantLeases(EPISODES)]
    assert len(scene.engine.calls) == EPISODES
    scene.engine.open.set()
    await scene.intake.until(m.Deliver, 5)
    assert {g.lease for g in scene.intake.delivered} == set(range(5))
    assert all(want.capacity <= EPISODES for want in scene.intake.of(m.WantLeases))
    await scene.stop()


async def test_an_episode_is_open_until_its_group_is_acknowledged() -> None:
    scene = Scene()
    scene.intake.durable.clear()
    await scene.intake.grant(*(solving(i) for i in range(EPISODES + 1)))
    await scene.intake.until(m.Deliver, EPISODES)
    await scene.settle()
    assert len(scene.intake.of(m.WantLeases)) == 1
    scene.intake.durable.set()
    await scene.intake.until(m.Deliver, EPISODES + 1)
    await scene.stop()


async def test_a_cancelled_episode_delivers_nothing_and_makes_room() -> None:
    scene = Scene()
    scene.engine.open.clear()
    await scene.intake.grant(*(solving(i) for i in range(EPISODES)))
    await scene.settle()
    scene.intake.notify(m.Cancel((0, 2, 77)))
    await scene.settle()
    assert scene.engine.running == 2  # the samples of lease 1
    assert scene.intake.of(m.WantLeases)[1:] == [m.WantLeases(2)]
    scene.engine.open.set()
    await scene.intake.until(m.Deliver)
    await scene.settle()
    assert [g.lease for g in scene.intake.delivered] == [1]
    await scene.stop()


async def test_a_lease_granted_again_goes_on_as_it_is() -> None:
    scene = Scene()
    scene.engine.open.clear()
    await scene.intake.grant(solving(1))
    await scene.settle()
    await scene.intake.grant(dataclasses.replace(solving(1), attempt=1), solving(2))
    await scene.settle()
    assert len(scene.engine.calls) == 2
    scene.engine.open.set()
    await scene.intake.until(m.Deliver, 2)
    await scene.intake.grant(*(solving(i) for i in range(3, 3 + EPISODES)))
    await scene.intake.until(m.Deliver, 2 + EPISODES)
    await scene.settle()
    assert sorted(g.lease for g in scene.intake.delivered) == [1, 2, *range(3, 3 + EPISODES)]
    await scene.stop()


async def test_no_more_leases_is_no_end() -> None:
    scene = Scene()
    await scene.intake.grant()
    await scene.settle()
    assert len(scene.intake.of(m.WantLeases)) == 1 and not scene.run.done()
    scene.intake.notify(push(1))
    await scene.intake.until(m.Staged)
    await scene.stop()


# -- back-pressure -----------------------------------------------------------------------------------------------


async def test_a_stuck_executor_stops_the_admission_of_episodes_until_it_goes_on() -> None:
    scene = Scene(episodes=8, credits=2)
    scene.executor.open.clear()
    await scene.intake.grant(solving(0), solving(1))
    await scene.settle()
    assert scene.executor.room == 0
    # The second request was on its way before the first episodes came to the executor.
    assert scene.intake.of(m.WantLeases) == [m.WantLeases(2)] * 2
    await scene.intake.grant(*(solving(i) for i in range(2, 10)))
    await scene.clock.advance(LEASE_TIMEOUT)
    assert len(scene.engine.calls) == 4 and len(scene.intake.of(m.WantLeases)) == 2
    scene.executor.open.set()
    await scene.intake.until(m.Deliver, 10)
    assert {g.lease for g in scene.intake.delivered} == set(range(10))
    assert all(want.capacity <= 2 for want in scene.intake.of(m.WantLeases))
    await scene.stop()


async def test_admission_goes_on_when_jobs_end_not_only_when_episodes_do() -> None:
    scene = Scene(episodes=8, credits=1)
    scene.executor.open.clear()
    for lease in (0, 1):
        await scene.intake.grant(proposing(lease))
        await scene.settle()
    assert len(scene.intake.of(m.WantLeases)) == 2
    scene.engine.open.clear()  # what has been proposed will not be solved
    scene.executor.open.set()
    await scene.intake.until(m.WantLeases, 3)
    await scene.settle()
    assert len(scene.executor.validated) == 2 and scene.intake.delivered == []
    await scene.stop()


async def test_an_executor_without_room_is_tried_when_nothing_is_open() -> None:
    scene = Scene(credits=0)
    await scene.settle()
    assert scene.intake.of(m.WantLeases) == [m.WantLeases(1)]
    scene.engine.open.clear()
    await scene.intake.grant(solving(0), solving(1))
    await scene.settle()
    assert [call.n for call in scene.engine.calls] == [2] and len(scene.intake.of(m.WantLeases)) == 1
    scene.intake.notify(m.Cancel((0,)))
    await scene.settle()
    assert scene.intake.of(m.WantLeases) == [m.WantLeases(1)] * 2
    await scene.stop()


async def test_an_adaptive_actor_opens_fewer_episodes_when_requests_queue_and_more_when_slots_are_free() -> None:
    scene = Scene(episodes=0, slots=8)  # three samples each: 24 in flight, of which 16 queue
    scene.engine.open.clear()
    await scene.intake.grant(*(solving(i, samples=3) for i in range(20)))
    await scene.settle()
    assert len(scene.engine.calls) == 8 and scene.engine.running == 24
    scene.intake.notify(m.Cancel((0,)))  # an end: from here on it knows of the queue
    await scene.clock.advance(PERIOD)
    scene.intake.notify(m.Cancel((1,)))
    await scene.settle()
    assert scene.engine.running == 21  # 7 are open, and no more
    scene.engine.open.set()
    await scene.intake.until(m.Deliver, 18)
    await scene.stop()


# -- weights -----------------------------------------------------------------------------------------------------


async def test_a_push_is_staged_and_committed_while_episodes_run() -> None:
    scene = Scene()
    scene.engine.open.clear()
    await scene.intake.grant(solving(1))
    scene.intake.notify(push(6, epoch=2))
    assert await scene.intake.until(m.Staged) == [m.Staged(2, 6)]
    assert scene.engine.version == 0
    scene.intake.notify(m.Commit(6, (np.arange(4, dtype=np.int32), np.arange(2, dtype=np.int32))))
    (committed,) = await scene.intake.until(m.Committed)
    assert (committed.version, committed.pause, committed.load, committed.error) == (6, 0.25, 0.125, "")
    assert [p.tolist() for p in committed.probe] == [[6.0] * 3, [6.0]]
    assert scene.intake.delivered == []
    await scene.clock.advance(REPORT_INTERVAL)
    phases = {span.phase: span for span in scene.intake.of(m.Report)[0].pushes}
    assert list(phases) == ["stage", "pause", "load", "commit"] and {s.version for s in phases.values()} == {6}
    assert [span.seconds for span in phases.values()] == [0.5, 0.25, 0.125, 0.0]
    assert [span.tokens for span in phases.values()] == [30, 0, 0, 0]
    scene.engine.open.set()
    await scene.intake.until(m.Deliver)
    await scene.stop()


async def test_a_stage_that_fails_is_reported_and_work_goes_on() -> None:
    scene = Scene()
    scene.engine.stage_error = "checksum of version 3 disagrees"
    scene.intake.notify(push(3))
    assert await scene.intake.until(m.Staged) == [m.Staged(1, 3, "checksum of version 3 disagrees")]
    await scene.intake.grant(solving(1))
    await scene.intake.until(m.Deliver)
    scene.engine.stage_error = ""
    scene.intake.notify(push(3, epoch=2))
    assert (await scene.intake.until(m.Staged, 2))[1] == m.Staged(2, 3)
    await scene.stop()


async def test_a_commit_of_what_is_not_staged_is_reported() -> None:
    scene = Scene()
    scene.intake.notify(push(5))
    await scene.intake.until(m.Staged)
    scene.intake.notify(m.Commit(6))
    assert await scene.intake.until(m.Committed) == [m.Committed(6, error="version 6 is not staged")]
    await scene.stop()


# -- life --------------------------------------------------------------------------------------------------------


async def test_stop_drops_what_is_open() -> None:
    scene = Scene()
    scene.engine.open.clear()
    await scene.intake.grant(solving(1))
    await scene.settle()
    await scene.stop()
    assert scene.engine.running == 0 and scene.intake.delivered == []


async def test_stop_with_an_error_names_the_actor() -> None:
    scene = Scene()
    with pytest.raises(PartFailed, match="actor-4: error: log-probs differ"):
        await scene.stop("error: log-probs differ by 0.3 after version 5")


async def test_the_death_of_the_engine_ends_the_actor() -> None:
    scene = Scene()
    scene.engine.open.clear()
    await scene.intake.grant(solving(1))
    await scene.settle()
    failure = PartFailed("engine", "RuntimeError: out of memory")
    scene.engine.die(failure)
    with pytest.raises(PartFailed) as caught:
        await scene.over()
    assert caught.value is failure
    assert scene.engine.running == 0


async def test_a_bug_in_an_episode_ends_the_actor() -> None:
    def broken(task: Task, answer: str) -> Verdict:
        raise ZeroDivisionError("a bug")

    scene = Scene(verify=broken)
    await scene.intake.grant(solving(1))
    with pytest.raises(ZeroDivisionError):
        await scene.over()


async def test_who_runs_it_can_cancel_it() -> None:
    scene = Scene()
    scene.engine.open.clear()
    await scene.intake.grant(solving(1))
    await scene.settle()
    scene.run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await scene.over()
    assert scene.engine.running == 0


async def test_open_leases_are_renewed_four_times_per_timeout() -> None:
    scene = Scene()
    scene.engine.open.clear()
    await scene.intake.grant(solving(1), solving(2))
    await scene.clock.advance(LEASE_TIMEOUT)
    assert scene.intake.of(m.Renew) == [m.Renew((1, 2))] * 4
    scene.engine.open.set()
    await scene.intake.until(m.Deliver, 2)
    await scene.clock.advance(LEASE_TIMEOUT / 4)
    assert scene.intake.of(m.Renew)[-1] == m.Renew(())
    await scene.stop()


async def test_reports_tell_what_the_gpus_do() -> None:
    scene = Scene()
    await scene.clock.advance(2 * REPORT_INTERVAL)
    assert [report.gpus for report in scene.intake.of(m.Report)] == [OneGpu().sample(t) for t in (1.0, 2.0)]
    await scene.stop()


async def test_reports_tell_where_time_went() -> None:
    scene = Scene()
    await scene.clock.advance(REPORT_INTERVAL)
    scene.engine.open.clear()
    await scene.intake.grant(solving(1, samples=2))
    await scene.clock.advance(REPORT_INTERVAL)
    scene.engine.open.set()
    await scene.intake.until(m.Deliver)
    await scene.clock.advance(REPORT_INTERVAL)
    idle, busy, done = scene.intake.of(m.Report)
    assert idle.part == "actor-4"
    assert idle.ledger == {"wait-lease": 1.0} and idle.state == "wait-lease"
    assert busy.ledger == {"wait-lease": 1.0, "generate": 1.0} and busy.state == "generate"
    tokens = 2 * (len("<answer>4</answer>") + 1)
    assert done.ledger == {"wait-lease": 2.0, "generate": 1.0} and done.state == "wait-lease"
    assert done.produced == ((2.0, tokens),) and busy.produced == ()
    assert done.costs["episode"] == done.costs["generate"] == 1 and not idle.costs and not busy.costs
    assert (done.costs["generate/seconds"], done.costs["generate/steps"]) == (1.0, tokens / 2)
    assert [report.spans for report in (idle, busy, done)] == [
        (("wait-lease", 0.0, 1.0),),
        (("generate", 1.0, 2.0),),
        (("wait-lease", 2.0, 3.0),),
    ]
    await scene.stop()
