"""The client's side: which shard is asked, how often, for how long, and what happens when shards fail."""

from __future__ import annotations

import asyncio
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import ExecutorConfig
from common.errors import PartFailed, WireError
from common.jobs import Validate, Validation, Verdict, Verdicts, Verify
from common.types import Status, Task, TaskType
from executor.pool import SPILL, Pool, bounded, order
from executor.service import serve
from tests.fakes.clock import FakeClock

JOB = Validate("def f(x): return x", ("1",))
TASK = Task(TaskType.ABDUCTION, JOB.program, ("1",), ("1",), "k")
CREDITS, DEADLINE = 4, 30.0


class Answering:
    """A shard that knows every answer, and gives it while it is `open`."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.asked, self.running = 0, 0

    async def validate(self, job: Validate) -> Validation:
        await self._judge()
        return Validation(Status.OK, outputs=job.inputs)

    async def verify(self, job: Verify) -> Verdicts:
        await self._judge()
        return Verdicts((Verdict(True, Status.OK),) * len(job.answers))

    async def request(self, message: Any) -> Any:
        return await serve(self, message, 2 * DEADLINE, FakeClock())

    async def _judge(self) -> None:
        self.asked += 1
        self.running += 1
        try:
            await self.open.wait()
        finally:
            self.running -= 1


class Saying:
    """A shard that answers everything with `reply`, or fails with it."""

    def __init__(self, reply: object) -> None:
        self.reply, self.asked = reply, 0

    async def request(self, message: Any) -> Any:
        self.asked += 1
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


class Dying:
    """A shard whose client gives it up after `seconds`."""

    def __init__(self, clock: FakeClock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    async def request(self, message: Any) -> Any:
        await self.clock.sleep(self.seconds)
        raise PartFailed("executor", "silent")


class Scene:
    """A pool of the given shards, in the order in which JOB asks them."""

    def __init__(self, *shards: Any, clock: FakeClock | None = None) -> None:
        self.clock, self.order = clock or FakeClock(), order(JOB.program, len(shards))
        placed = dict(zip(self.order, shards, strict=True))
        config = ExecutorConfig(credits=CREDITS, deadline=DEADLINE)
        self.pool = Pool([placed[index] for index in range(len(shards))], config, self.clock)

    def replace(self, place: int, shard: Any) -> None:
        self.pool.replace(self.order[place], shard)

    async def ask(self) -> asyncio.Task[Validation]:
        """A job under way, as far as it gets."""
        task = asyncio.create_task(self.pool.validate(JOB))
        await self.clock.advance(0.0)
        return task


def gone() -> Saying:
    return Saying(PartFailed("executor 0", "gone"))


# -- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "reply",
    [
        WireError("gone"),
        PartFailed("executor 0", "gone"),
        None,
        Verdicts(()),
        Validation(Status.INFRA, "the shard is closing"),
    ],
)
async def test_the_next_shard_answers_for_one_that_fails(reply: object) -> None:
    first = Saying(reply)
    assert (await Scene(first, Answering()).pool.validate(JOB)).outputs == ("1",)
    assert first.asked == 1


@pytest.mark.parametrize("verdicts", [0, 1, 3])
async def test_answers_are_as_many_as_asked_and_all_are_known(verdicts: int) -> None:
    wrong: list[Saying] = [Saying(Verdicts((Verdict(False, Status.OK),) * verdicts))]
    wrong.append(Saying(Verdicts((Verdict(False, Status.OK), Verdict(False, Status.INFRA)))))
    for shard in wrong:
        reply = await Scene(shard, Answering()).pool.verify(Verify(TASK, ("1", "2")))
        assert [(v.correct, v.status) for v in reply.verdicts] == [(True, "ok")] * 2


async def test_without_any_answer_the_status_is_infra() -> None:
    pool = Scene(Saying(WireError("gone")), Saying(None)).pool
    assert (await pool.validate(JOB)).status == "infra"
    reply = await pool.verify(Verify(TASK, ("1", "2")))
    assert [(v.correct, v.status) for v in reply.verdicts] == [(False, "infra")] * 2


async def test_no_more_than_two_others_are_asked() -> None:
    shards = [gone() for _ in range(5)]
    assert (await Scene(*shards).pool.validate(JOB)).status == "infra"
    assert [shard.asked for shard in shards] == [1, 1, 1, 0, 0]


async def test_a_shard_that_is_gone_comes_last_until_it_is_replaced() -> None:
    first, second = gone(), Answering()
    scene = Scene(first, second)
    for _ in range(3):
        assert (await scene.pool.validate(JOB)).status == "ok"
    assert (first.asked, second.asked) == (1, 3)
    fresh = Answering()
    scene.replace(0, fresh)
    assert (await scene.pool.validate(JOB)).status == "ok"
    assert (first.asked, second.asked, fresh.asked) == (1, 3, 1)


async def test_a_shard_that_is_gone_is_the_first_again_when_it_answers() -> None:
    first = gone()
    scene = Scene(first, Answering())
    await scene.pool.validate(JOB)
    first.reply = Validation(Status.OK)
    await scene.pool.validate(JOB)
    assert first.asked == 1
    scene.replace(1, gone())
    assert (await scene.pool.validate(JOB)).status == "ok"
    other = Answering()
    scene.replace(1, other)
    assert (await scene.pool.validate(JOB)).status == "ok"
    assert (first.asked, other.asked) == (3, 0)


async def test_a_job_of_the_only_shard_goes_to_the_one_that_replaces_it() -> None:
    clock = FakeClock()
    scene = Scene(Dying(clock, 5.0), clock=clock)
    job = await scene.ask()
    scene.replace(0, Answering())
    await scene.clock.advance(5.0)
    assert (await job).status == "ok"


# -- deadline ----------------------------------------------------------------------------------------------------


async def test_a_job_that_nobody_answers_ends_at_the_deadline() -> None:
    stuck = Answering()
    stuck.open.clear()
    scene = Scene(stuck, Answering())
    job = await scene.ask()
    await scene.clock.advance(DEADLINE - 1)
    assert not job.done() and stuck.running == 1
    await scene.clock.advance(1.0)
    assert (await job).status == "infra"
    assert stuck.running == 0 and scene.pool.room == 2 * CREDITS


async def test_the_deadline_is_one_for_all_shards_together() -> None:
    clock = FakeClock()
    scene = Scene(*[Dying(clock, 0.6 * DEADLINE)] * 3, clock=clock)
    job = await scene.ask()
    await scene.clock.advance(DEADLINE - 1)
    assert not job.done()
    await scene.clock.advance(1.0)
    assert (await job).status == "infra"


async def test_a_shard_gives_up_what_nobody_waits_for() -> None:
    clock, shard = FakeClock(), Answering()
    shard.open.clear()
    for job in (JOB, Verify(TASK, ("1",))):
        serving = asyncio.create_task(serve(shard, job, DEADLINE, clock))
        await clock.advance(DEADLINE - 1)
        assert shard.running == 1 and not serving.done()
        await clock.advance(1.0)
        with pytest.raises(PartFailed, match="executor"):
            await serving
        assert shard.running == 0
    leaving = asyncio.create_task(serve(shard, JOB, DEADLINE, clock))
    await clock.advance(0.0)
    leaving.cancel()
    await clock.advance(0.0)
    assert leaving.cancelled() and shard.running == 0 and clock.sleepers == 0


# -- load --------------------------------------------------------------------------------------------------------


async def test_equal_programs_go_to_the_same_shard() -> None:
    shards = [Answering(), Answering(), Answering()]
    pool = Scene(*shards).pool
    for _ in range(5):
        await pool.validate(JOB)
        await pool.verify(Verify(TASK, ("1",)))
    assert [shard.asked for shard in shards] == [10, 0, 0]


async def test_a_program_spills_to_its_next_shard_when_its_own_has_too_much() -> None:
    shards = [Answering(), Answering(), Answering()]
    for shard in shards:
        shard.open.clear()
    scene = Scene(*shards)
    jobs = [await scene.ask() for _ in range(24)]
    assert [shard.running for shard in shards] == [10, 10, 4]
    for shard in shards:
        shard.open.set()
    assert {job.status for job in await asyncio.gather(*jobs)} == {"ok"}
    assert scene.pool.room == 3 * CREDITS


@given(st.lists(st.tuples(st.permutations(range(3)), st.integers(0, 40)), max_size=60))
def test_no_shard_takes_more_than_its_part(arrivals: Sequence[tuple[list[int], int]]) -> None:
    running = [0, 0, 0]
    for preferred, ending in arrivals:
        running = [max(0, count - ending * (index == preferred[-1])) for index, count in enumerate(running)]
        limit = math.ceil(SPILL * (sum(running) + 1) / 3)
        place = bounded([running[index] for index in preferred])
        assert all(running[index] >= limit for index in preferred[:place])
        running[preferred[place]] += 1
        assert running[preferred[place]] <= limit


@pytest.mark.parametrize("shards", [1, 2, 3, 7, 100])
def test_a_lone_job_stays_with_its_favourite(shards: int) -> None:
    assert bounded([0] * shards) == 0


def test_programs_spread_and_stay_when_a_shard_is_added() -> None:
    programs = [f"def f(x): return {n}" for n in range(300)]
    counts = Counter(order(program, 3)[0] for program in programs)
    assert min(counts.values()) > 60
    assert all(order(p, 4)[0] in (order(p, 3)[0], 3) for p in programs)


# -- room --------------------------------------------------------------------------------------------------------


async def test_room_is_what_jobs_leave_free_and_comes_back_with_their_end() -> None:
    stuck = Answering()
    stuck.open.clear()
    scene = Scene(stuck)
    rooms, jobs = [], []
    for _ in range(CREDITS + 2):
        rooms.append(scene.pool.room)
        jobs.append(await scene.ask())
    assert rooms == [4, 3, 2, 1, 0, 0] and scene.pool.room == 0
    for _ in range(3):
        jobs.pop().cancel()
    await scene.clock.advance(0.0)
    assert scene.pool.room == 1
    stuck.open.set()
    await asyncio.gather(*jobs)
    assert scene.pool.room == CREDITS


async def test_a_shard_that_is_gone_has_no_room_until_it_is_replaced() -> None:
    scene = Scene(gone(), gone())
    assert scene.pool.room == 2 * CREDITS
    await scene.pool.validate(JOB)
    assert scene.pool.room == 0
    scene.replace(1, Answering())
    assert scene.pool.room == CREDITS


# -- the other side ----------------------------------------------------------------------------------------------


async def test_what_is_no_job_is_refused() -> None:
    with pytest.raises(WireError, match="str"):
        await serve(Answering(), "hello", DEADLINE, FakeClock())


def test_an_executor_process_never_imports_torch() -> None:
    code = "import sys, executor.shard, executor.service, executor.pool; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0
