"""staleness.auto: what a change of η does to what is granted, and how the intake comes to one."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from azr.view import line
from common import messages as m
from common.clock import Clock
from common.config import Config
from common.staleness import StalenessConfig
from common.types import Kind, Lease
from learner import trace
from learner.admission import Admission, Ended, Limits
from learner.auto_eta import AutoEta
from learner.leases import kind_of, lease_id
from learner.resume_point import latest_eta, record_checkpoint
from tests.fakes.clock import FakeClock
from tests.fakes.groups import a_group, a_sample
from tests.fakes.peers import Stage, small

KIND = Kind.SOLVE_DEDUCTION


class House:
    """Two groups of one kind in a batch."""

    def __init__(self, eta: int, clock: Clock | None = None, steps: int = 100) -> None:
        self.ends: list[Ended] = []
        limits = Limits(eta, 2 * eta, 10.0, steps)
        self.admission = Admission({KIND: 2}, limits, clock or FakeClock(), _lease, self.ends.append)

    def grant(self, capacity: int = 99) -> list[Lease]:
        return self.admission.grant(0, capacity)

    def deliver(self, *leases: Lease) -> int:
        """How many batches that makes."""
        for lease in leases:
            self.admission.deliver(a_group(lease.id, lease.kind, [a_sample(lease.kind, version=lease.version)]))
        before = self.admission.batched
        while self.admission.form() is not None:
            pass
        return self.admission.batched - before


def _lease(number: int, version: int) -> Lease:
    return Lease(number, 0, kind_of(number), version, seed=number, samples=1)


# -- admission -----------------------------------------------------------------------------------------------------


def test_what_a_larger_eta_let_in_is_trained_although_it_is_staler_than_the_new_bound() -> None:
    house = House(eta=4)
    leases = house.grant()
    assert len(leases) == 10
    assert house.deliver(*leases[:3]) == 1
    house.admission.adapt(0, 0)
    house.admission.advance(1)
    assert house.deliver(*leases[3:]) == 4  # the last of them 4 versions old
    assert house.ends == []


def test_a_smaller_eta_grants_nothing_until_the_version_has_caught_up() -> None:
    house = House(eta=3)
    house.deliver(*house.grant())
    house.admission.adapt(1, 2)
    granted = []
    for version in range(5):
        house.admission.advance(version)
        granted.append(len(leases := house.grant()))
        house.deliver(*leases)
    assert granted == [0, 0, 0, 2, 2]  # batches 0 … 3 are there; version 3 may sample up to batch 4


def test_what_is_granted_afterwards_keeps_to_the_new_bound() -> None:
    house = House(eta=2)
    house.deliver(*house.grant(2))
    house.admission.adapt(1, 0)
    old = house.grant(1)
    house.admission.adapt(1, 2)
    new = house.grant()
    house.admission.adapt(1, 0)
    assert house.admission.advance(1) == [(0, lease.id) for lease in old]
    assert house.deliver(*new) == 0 and house.admission.waiting[KIND] == 1


def test_a_larger_eta_is_good_for_what_is_open_too() -> None:
    house = House(eta=1)
    house.admission.adapt(1, 0)
    leases = house.grant()
    house.admission.adapt(1, 2)
    assert house.deliver(*leases[:2]) == 1
    assert house.admission.advance(1) == []
    assert house.deliver(*leases[2:]) == 1


def test_restored_groups_have_the_bound_they_are_given() -> None:
    for bound, formed in ((3, 1), (2, 0)):
        house = House(eta=0)
        house.admission.resume(3, 3, {KIND: 50})
        groups = [a_group(lease_id(KIND, n), KIND, [a_sample(KIND, version=0)]) for n in (40, 41)]
        house.admission.restore(groups, bound)
        assert house.deliver() == formed


def test_only_what_eta_forbids_counts_as_forbidden() -> None:
    house = House(eta=0, steps=2)
    house.grant(2)
    assert house.admission.forbidden == 0
    house.grant(1)
    assert house.admission.forbidden == 1
    house.admission.advance(1)
    house.grant()  # all that the run will train
    assert house.admission.forbidden == 1


# -- control -------------------------------------------------------------------------------------------------------


class Room:
    """AutoEta on an admission whose actor wants more than it gets; steps of `seconds`, of which it waits `waited`."""

    def __init__(self, eta: int = 1, *, auto: bool = True) -> None:
        self.clock, self.told = FakeClock(), list[tuple[int, int]]()
        self.house = House(eta, self.clock)
        settings = StalenessConfig(eta=eta, auto=auto, eta_max=4, patience=2, ess_floor=0.5, wait_share=0.1)
        self.auto = AutoEta(settings, self.house.admission, self.clock, lambda *change: self.told.append(change))

    async def step(self, number: int, *, waited: float, ess: float | None = 1.0) -> dict[str, float]:
        self.house.grant()
        self.auto.asked(number)
        self.auto.asked(number)
        await self.clock.advance(waited)
        self.auto.formed(number)
        await self.clock.advance(4.0 - waited)
        metrics = {} if ess is None else {"tokens": 7.0, "effective_sample_size": ess}
        return self.auto.trained(m.StepDone(number, metrics, 4.0 - waited))


async def test_a_learner_that_waits_makes_it_grow_and_the_row_says_so() -> None:
    room = Room()
    first, second = await room.step(0, waited=1.0), await room.step(1, waited=2.0)
    assert (first["staleness/eta"], first["staleness/eta_waited"], first["staleness/eta_forbidden"]) == (1, 0.25, 1)
    assert (second["staleness/eta_waited"], second["staleness/eta_raised_by_wait"]) == (0.5, 1)
    assert (await room.step(2, waited=0.0))["staleness/eta"] == 2
    assert room.told == [(1, 2)] and room.auto.status() == {"eta": 2}
    assert (room.house.admission.limits.eta, room.house.admission.limits.max_staleness) == (2, 4)


async def test_a_low_effective_sample_size_makes_it_fall() -> None:
    room = Room(eta=4)
    rows = [await room.step(n, waited=0.0, ess=0.4) for n in range(2)]
    assert [row["staleness/eta_lowered_by_ess"] for row in rows] == [0, 1]
    assert (room.house.admission.limits.eta, room.house.admission.limits.max_staleness) == (2, 4)


async def test_a_batch_that_was_there_before_it_was_asked_for_was_not_waited_for() -> None:
    room = Room()
    room.auto.formed(0)
    await room.clock.advance(3.0)
    room.auto.asked(0)
    await room.clock.advance(1.0)
    assert room.auto.trained(m.StepDone(0, {}, 1.0))["staleness/eta_waited"] == 0.0


async def test_what_formed_before_is_not_kept() -> None:
    room = Room()
    for step in range(3):
        room.auto.formed(step)
    room.auto.trained(m.StepDone(2, {}, 1.0))
    assert room.auto._formed == {}


async def test_without_it_nothing_changes_and_nothing_is_told() -> None:
    room = Room(auto=False)
    assert [await room.step(n, waited=3.0, ess=0.1) for n in range(4)] == [{}] * 4
    room.auto.begin(3)
    assert room.house.admission.limits.eta == 1 and room.told == [] and room.auto.status() == {}


@pytest.mark.parametrize(("found", "eta"), [(3, 3), (9, 4), (-1, 0)])
def test_it_goes_on_with_what_its_settings_allow(found: int, eta: int) -> None:
    room = Room()
    room.auto.begin(found)
    assert room.house.admission.limits.eta == eta and room.auto.status() == {"eta": eta}


# -- in the intake ---------------------------------------------------------------------------------------------------


def adapting(*, incarnation: int = 0) -> Config:
    config = small(eta=0, steps=12, save_every=3, incarnation=incarnation)
    return replace(config, staleness=replace(config.staleness, auto=True, eta_max=3, patience=2))


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Callable[[int], Stage]]:
    made: list[Stage] = []

    def make(incarnation: int) -> Stage:
        made.append(Stage(adapting(incarnation=incarnation), tmp_path))
        return made[-1]

    yield make
    for stage in made:
        await stage.crash()


async def waited_for(stage: Stage, step: int) -> None:
    """The learner asks, an actor makes the batch in a second, and a step takes another."""
    share = await stage.poll("trainer", 0, m.WantShare(0, step))
    leases = await stage.lease()
    more = await stage.poll("actor", 0, m.WantLeases(1))
    await stage.clock.advance(1.0)
    await stage.fulfil(leases)
    await stage.clock.advance(1.0)
    assert share.done()
    more.cancel()
    await stage.ask("trainer", 0, m.StepDone(step, {"tokens": 9.0, "effective_sample_size": 0.9}, 1.0))
    if share.result().save:
        await stage.save(step + 1)


async def test_lock_step_lets_the_learner_wait_and_eta_grows_across_a_crash(
    stages: Callable[[int], Stage], tmp_path: Path
) -> None:
    stage = stages(0)
    await stage.begin(0)
    for step in range(3):
        await waited_for(stage, step)
    assert stage.intake.admission.limits.eta == 1
    assert "eta 1" in line({**stage.intake.status(), "stall": ()})
    await stage.crash()
    rows = [json.loads(row) for row in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["staleness/eta"] for row in rows] == [0, 0, 1]
    assert [row["staleness/eta_raised_by_wait"] for row in rows] == [0, 1, 0]
    events = trace.read(tmp_path / "trace.json")
    assert [event["args"] for event in events if event["name"] == "eta" and event["ph"] == "i"] == [
        {"before": 0, "eta": 1}
    ]
    assert [event["args"] for event in events if event["name"] == "eta" and event["ph"] == "C"] == [
        {"eta": 0},
        {"eta": 1},
    ]

    again = stages(1)
    again.intake.resume(3)
    assert again.intake.admission.limits.eta == 1 and again.intake.status()["eta"] == 1


async def test_eta_in_force_outlives_the_intake(stages: Callable[[int], Stage], tmp_path: Path) -> None:
    """No checkpoint has seen it; a run that returns to the checkpoint takes it back, and says so."""
    stage = stages(0)
    await stage.begin(0)
    for step in range(2):
        await waited_for(stage, step)
    eta = stage.intake.admission.limits.eta
    assert eta > latest_eta(tmp_path, 0)
    await stage.crash()
    back = stages(0)
    back.intake.rejoin(1)
    assert (back.intake.admission.limits.eta, back.intake.status()["eta"]) == (eta, eta)
    await back.crash()
    again = stages(1)
    again.intake.resume(0)
    assert again.intake.admission.limits.eta == latest_eta(tmp_path, 0)
    await again.crash()
    marks = [e["args"] for e in trace.read(tmp_path / "trace.json") if e["name"] == "eta" and e["ph"] == "i"]
    assert marks[-1] == {"before": eta, "eta": latest_eta(tmp_path, 0)}


def test_a_checkpoint_without_eta_says_nothing_of_it(tmp_path: Path) -> None:
    assert latest_eta(tmp_path, 2) == 2
    record_checkpoint(tmp_path, 3, "checkpoints/step-000003")
    assert latest_eta(tmp_path, 2) == 2
    record_checkpoint(tmp_path, 3, "checkpoints/step-000003", 0)
    assert latest_eta(tmp_path, 2) == 0
