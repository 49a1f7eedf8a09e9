"""Pushes as a script: fake engines and a fake publisher say what real ones would, one line per event."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator

import numpy as np
import pytest

from common.errors import PartFailed
from common.messages import Ack, Commit, Committed, Declined, Offer, Published, Push, Stage, Staged, Stop
from learner.weight_sync import ENGINE_ATTEMPTS, PUSH_ATTEMPTS, PushRecord, WeightSync, probe_difference
from tests.fakes.clock import FakeClock
from tests.fakes.intake import SAFETY_NET

TIMEOUT = 30.0
PROBE = (np.array([1, 2, 3], dtype=np.int32),)
LOGPROBS = (np.array([-1.0, -2.0], dtype=np.float32),)


class Stageplay:
    """A WeightSync with its peers. Engines answer at once unless a test says otherwise in the sets below."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.held = False
        self.sync = WeightSync(
            self.notify,
            self.committed,
            self.clock,
            held=lambda: self.held,
            tolerance=1e-3,
            timeout=TIMEOUT,
        )
        self.records: list[PushRecord] = []
        self.pushes: list[Push] = []
        self.stages: list[tuple[int, Stage]] = []
        self.commits: list[tuple[int, int]] = []  # (engine, version)
        self.stopped: dict[int, str] = {}
        self.cannot_stage: dict[int, list[str]] = {}  # what an engine says instead, one after the other
        self.cannot_load: dict[int, str] = {}
        self.silent: set[int] = set()
        self.leaves_at_stage: set[int] = set()
        self.leaves_at_commit: set[int] = set()
        self.drift: dict[int, float] = {}
        self.broken: list[str] = []  # what the publisher says of its next broadcasts
        self.mute_publisher = False
        self.unoffered = 0  # of these, the first so many fail before there is an offer
        self.running = asyncio.create_task(self.sync.run())
        self.publishing = asyncio.create_task(self.publish())

    async def publish(self) -> None:
        while not (push := await self.sync.want_push()).stop:
            self.pushes.append(push)
            if self.mute_publisher:
                await asyncio.Event().wait()
            if self.unoffered:
                self.unoffered -= 1
            else:
                self.sync.offer(Offer(push.version, push.epoch, "here", 1, (), "sum", PROBE, LOGPROBS))
            self.sync.published(Published(push.version, push.epoch, self.broken.pop(0) if self.broken else ""))

    async def notify(self, index: int, message: object) -> None:
        match message:
            case Stage():
                self.stages.append((index, message))
                self.stage(index, message)
            case Commit(version):
                self.commits.append((index, version))
                self.commit(index, version)
            case Stop(reason):
                self.stopped[index] = reason

    def stage(self, index: int, message: Stage) -> None:
        if index in self.leaves_at_stage:
            self.sync.engine_left(index)
        elif index not in self.silent:
            errors = self.cannot_stage.get(index)
            self.sync.staged(index, Staged(message.epoch, message.version, errors.pop(0) if errors else ""))

    def commit(self, index: int, version: int) -> None:
        if index in self.leaves_at_commit:
            self.sync.engine_left(index)
            return
        probe = tuple(logprobs + np.float32(self.drift.get(index, 0.0)) for logprobs in LOGPROBS)
        error = self.cannot_load.get(index, "")
        self.sync.committed(index, Committed(version, probe, pause=0.05, error=error))

    def committed(self, record: PushRecord) -> None:
        assert self.sync.version == record.version
        self.records.append(record)

    async def settle(self) -> None:
        """Until nobody has anything to do at this instant."""
        for _ in range(5):
            await self.clock.advance(0.0)

    async def start(self, *engines: int, version: int = 0) -> None:
        for index in engines:
            self.sync.engine_joined(index)
        self.sync.step_ready(version)
        await self.settle()

    def in_service(self) -> set[int]:
        return {index for index in range(10) if self.sync.in_service(index)}

    def versions(self) -> list[int]:
        return [record.version for record in self.records]


@pytest.fixture
async def play() -> AsyncIterator[Stageplay]:
    play = Stageplay()
    yield play
    for task in (play.running, play.publishing):
        task.cancel()
    await asyncio.gather(play.running, play.publishing, return_exceptions=True)


async def test_engines_enter_service_by_the_first_push(play: Stageplay) -> None:
    assert play.in_service() == set()
    await play.start(4, 2)
    assert play.sync.version == 0
    assert play.in_service() == {2, 4}
    assert [push.world for push in play.pushes] == [3]
    assert [(index, s.rank, s.world, s.epoch) for index, s in play.stages] == [(2, 1, 3, 1), (4, 2, 3, 1)]
    (record,) = play.records
    assert (record.engines, record.pauses, record.probe_difference) == (2, [0.05, 0.05], 0.0)


async def test_nothing_is_pushed_before_there_is_an_engine_or_a_version(play: Stageplay) -> None:
    play.sync.step_ready(0)
    await play.settle()
    assert play.pushes == []
    play.sync.engine_joined(0)
    await play.settle()
    assert play.versions() == [0]


async def test_an_engine_that_was_started_again_is_another_member(play: Stageplay) -> None:
    await play.start(0)
    play.sync.engine_left(0)
    play.sync.engine_joined(0)
    await play.settle()
    assert [(push.version, push.epoch) for push in play.pushes] == [(0, 1), (0, 2)]
    assert play.in_service() == {0}


async def test_an_unchanged_group_keeps_its_epoch(play: Stageplay) -> None:
    await play.start(0, 1)
    play.sync.step_ready(1)
    await play.settle()
    assert [(push.version, push.epoch) for push in play.pushes] == [(0, 1), (1, 1)]
    assert play.in_service() == {0, 1}


async def test_versions_made_during_a_push_are_skipped(play: Stageplay) -> None:
    play.sync.engine_joined(0)
    play.sync.step_ready(0)
    play.sync.step_ready(2)
    await play.settle()
    assert play.versions() == [2]


async def test_a_late_joiner_is_served_in_a_new_group_and_the_others_load_nothing(play: Stageplay) -> None:
    await play.start(0)
    play.sync.engine_joined(1)
    assert play.in_service() == {0}
    await play.settle()
    assert play.in_service() == {0, 1}
    assert [(push.version, push.epoch, push.world) for push in play.pushes] == [(0, 1, 2), (0, 2, 3)]
    assert play.commits == [(0, 0), (1, 0)]
    assert play.versions() == [0, 0]


async def test_an_engine_that_returns_is_served_again(play: Stageplay) -> None:
    await play.start(0, 1)
    play.sync.engine_joined(1)
    assert play.in_service() == {0}
    await play.settle()
    assert play.in_service() == {0, 1}
    assert play.commits == [(0, 0), (1, 0), (1, 0)]


async def test_held_pushes_wait(play: Stageplay) -> None:
    await play.start(0)
    play.held = True
    play.sync.step_ready(1)
    await play.settle()
    assert play.versions() == [0]
    play.held = False
    play.sync.reconsider()
    await play.settle()
    assert play.versions() == [0, 1]


async def test_while_pushes_are_held_a_late_joiner_gets_the_version_in_force(play: Stageplay) -> None:
    await play.start(0)
    play.held = True
    play.sync.step_ready(1)
    play.sync.engine_joined(1)
    await play.settle()
    assert play.in_service() == {0, 1}
    assert play.commits == [(0, 0), (1, 0)]
    play.held = False
    play.sync.reconsider()
    await play.settle()
    assert play.commits[2:] == [(0, 1), (1, 1)]


async def test_an_engine_that_alone_cannot_stage_is_retired_and_the_others_are_served(play: Stageplay) -> None:
    play.cannot_stage[1] = ["a tensor is missing"]
    await play.start(0, 1, 2)
    assert play.stopped == {1: "error: could not stage version 0: a tensor is missing"}
    assert play.in_service() == {0, 2}
    assert [(push.epoch, push.world) for push in play.pushes] == [(1, 4), (2, 3)]
    assert play.commits == [(0, 0), (2, 0)]


async def test_a_broken_broadcast_is_tried_again_with_everybody(play: Stageplay) -> None:
    play.broken = ["lost a member"]
    play.cannot_stage = {0: ["lost a member"], 1: ["lost a member"]}
    await play.start(0, 1)
    assert play.stopped == {}
    assert play.in_service() == {0, 1}
    assert [push.epoch for push in play.pushes] == [1, 2]


async def test_who_fails_in_one_broken_broadcast_after_the_other_is_retired(play: Stageplay) -> None:
    play.broken = ["timed out"] * ENGINE_ATTEMPTS
    play.cannot_stage[1] = ["timed out"] * ENGINE_ATTEMPTS
    play.cannot_stage[0] = ["timed out"]
    await play.start(0, 1)
    assert set(play.stopped) == {1}
    assert play.in_service() == {0}


async def test_failures_long_ago_are_forgotten(play: Stageplay) -> None:
    await play.start(0, 1)
    for version in range(1, 5):
        play.broken = ["timed out"]
        play.cannot_stage[0] = ["timed out"]
        play.sync.step_ready(version)
        await play.settle()
    assert play.stopped == {}
    assert play.versions() == [0, 1, 2, 3, 4]


async def test_an_engine_that_leaves_while_staging_takes_nobody_with_it(play: Stageplay) -> None:
    play.leaves_at_stage = {1}
    play.broken = ["lost a member"]
    play.cannot_stage = {0: ["lost a member"], 2: ["lost a member"]}
    await play.start(0, 1, 2)
    assert play.stopped == {}
    assert play.in_service() == {0, 2}
    assert [push.world for push in play.pushes] == [4, 3]


async def test_an_engine_that_leaves_while_loading_does_not_hold_the_version_up(play: Stageplay) -> None:
    play.leaves_at_commit = {0}
    await play.start(0, 1)
    assert play.in_service() == {1}
    assert play.versions() == [0]
    assert play.stopped == {}


async def test_an_engine_that_cannot_load_is_retired(play: Stageplay) -> None:
    play.cannot_load[0] = "no buffer"
    await play.start(0, 1)
    assert play.stopped == {0: "error: could not load version 0: no buffer"}
    assert play.in_service() == {1}


async def test_an_engine_whose_log_probs_differ_is_retired(play: Stageplay) -> None:
    play.drift = {0: 0.0005, 1: 0.01}
    await play.start(0, 1)
    assert set(play.stopped) == {1}
    assert "log-probs differ by 0.01" in play.stopped[1]
    assert play.in_service() == {0}
    assert play.records[0].probe_difference == pytest.approx(0.01, rel=1e-3)


async def test_a_version_that_no_engine_serves_is_not_in_force(play: Stageplay) -> None:
    play.drift = {0: math.nan}
    await play.start(0)
    assert play.sync.version is None
    assert play.records == []
    play.drift.clear()
    play.sync.engine_joined(0)
    await play.settle()
    assert play.versions() == [0]


async def test_a_silent_engine_is_retired_after_the_timeout(play: Stageplay) -> None:
    play.silent = {1}
    await play.start(0, 1)
    assert play.records == []
    await play.clock.advance(TIMEOUT)
    await play.settle()
    assert play.stopped == {1: "error: could not stage version 0: no answer"}
    assert play.in_service() == {0}


async def test_a_silent_publisher_costs_no_engine_and_is_served_when_it_asks_again(play: Stageplay) -> None:
    play.mute_publisher = True
    await play.start(0)
    await play.clock.advance(TIMEOUT)
    await play.settle()
    assert play.records == [] and play.stopped == {}
    play.mute_publisher = False
    play.publishing.cancel()
    again = asyncio.create_task(play.publish())
    await play.settle()
    assert play.in_service() == {0}
    again.cancel()


async def test_a_publisher_that_fails_alone_again_and_again_ends_the_run_by_name(play: Stageplay) -> None:
    play.broken = ["no route to host"] * PUSH_ATTEMPTS
    await play.start(0)
    with pytest.raises(PartFailed, match=r"publisher: could not push version 0 3 times: no route to host"):
        await play.running
    assert play.stopped == {}


async def test_a_publisher_that_has_nothing_to_offer_is_not_waited_for(play: Stageplay) -> None:
    play.unoffered = PUSH_ATTEMPTS
    play.broken = ["cannot listen"] * PUSH_ATTEMPTS
    await play.start(0)
    with pytest.raises(PartFailed, match=r"publisher: could not push version 0 3 times: cannot listen"):
        await asyncio.wait_for(play.running, SAFETY_NET)
    assert play.stopped == {} and play.stages == []


async def test_a_publisher_that_fails_once_before_its_offer_is_asked_again(play: Stageplay) -> None:
    play.unoffered, play.broken = 1, ["cannot listen"]
    await play.start(0)
    assert play.versions() == [0] and [push.version for push in play.pushes] == [0, 0]


async def test_a_publisher_whose_line_broke_while_it_waited_is_no_one_to_push_with(play: Stageplay) -> None:
    await play.start(0)
    play.publishing.cancel()
    await play.settle()
    play.sync.step_ready(1)
    await play.settle()
    assert not play.running.done()
    play.publishing = asyncio.create_task(play.publish())
    await play.settle()
    assert play.versions() == [0, 1]


async def test_answers_of_an_earlier_epoch_do_not_count(play: Stageplay) -> None:
    play.silent = {0}
    await play.start(0)
    play.sync.staged(0, Staged(0, 0))
    await play.settle()
    assert play.records == []
    play.sync.staged(0, Staged(1, 0))
    await play.settle()
    assert play.versions() == [0]


async def test_the_publisher_is_let_go_whether_it_waits_or_comes_later(play: Stageplay) -> None:
    await play.settle()
    play.sync.stop()
    await play.publishing
    assert (await play.sync.want_push()).stop


def test_probe_difference() -> None:
    one, other = np.array([-1.0, -2.0], np.float32), np.array([-1.25, -2.0], np.float32)
    assert probe_difference((one, other), (one, other)) == 0.0
    assert probe_difference((one,), (other,)) == 0.25
    assert probe_difference((), ()) == 0.0
    assert probe_difference((one,), ()) == math.inf
    assert probe_difference((one,), (one[:1],)) == math.inf
    broken = np.array([math.nan, -2.0], np.float32)
    for number in (0, 1):  # a comparison with NaN is false: in which sequence it is must not matter
        assert probe_difference((one, one), (other, broken) if number else (broken, other)) == math.inf
    sunk = np.array([-math.inf, -2.0], np.float32)
    assert probe_difference((sunk,), (one,)) == probe_difference((sunk,), (sunk,)) == math.inf


async def test_an_offer_is_declined_unless_its_push_is_under_way(play: Stageplay) -> None:
    def offer(version: int, epoch: int) -> object:
        return play.sync.offer(Offer(version, epoch, "here", 1, (), "sum", PROBE, LOGPROBS))

    assert offer(0, 1) == Declined()  # asked for by an intake that has died
    play.silent = {0}
    await play.start(0)
    (push,) = play.pushes
    assert offer(push.version, push.epoch) == Ack()  # told twice
    assert offer(push.version, push.epoch - 1) == offer(push.version + 1, push.epoch) == Declined()
    await play.clock.advance(TIMEOUT)
    assert offer(push.version, push.epoch) == Declined()  # given up


async def test_where_nothing_was_in_service_none_is_pushed_until_one_is_held(play: Stageplay) -> None:
    play.sync.rejoin(None, life=1)
    play.sync.engine_joined(0)
    await play.settle()
    assert play.pushes == []
    play.sync.step_ready(0)
    await play.settle()
    assert play.versions() == [0]
