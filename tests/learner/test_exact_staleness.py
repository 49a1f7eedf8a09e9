"""staleness.mode=exact: step u trains what version u − η sampled, and nothing else, also after a crash."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import messages as m
from common.config import Config, load
from common.errors import ConfigError
from common.types import Kind, Lease, Share
from learner.admission import Admission, Ended, Limits
from learner.leases import kind_of, lease_id
from tests.fakes.clock import FakeClock
from tests.fakes.groups import a_group, a_sample, fulfil
from tests.fakes.peers import Stage, small

KIND = Kind.SOLVE_DEDUCTION


class House:
    """One group of one kind in a batch, delivered as soon as it is granted."""

    def __init__(self, eta: int, steps: int = 100) -> None:
        self.ends: list[Ended] = []
        limits = Limits(eta, 2 * eta, 10.0, steps, exact=True)
        self.admission = Admission({KIND: 1}, limits, FakeClock(), _lease, self.ends.append)

    def deliver(self, lease: Lease, *versions: int) -> bool:
        samples = [a_sample(lease.kind, version=v) for v in versions or (lease.version,)]
        return self.admission.deliver(a_group(lease.id, lease.kind, samples, attempt=lease.attempt))

    def fill(self) -> int:
        """Batches formed of all that may be granted now."""
        before = self.admission.batched
        for lease in self.admission.grant(0, 99):
            assert self.deliver(lease)
        while self.admission.form() is not None:
            pass
        return self.admission.batched - before


def _lease(number: int, version: int) -> Lease:
    return Lease(number, 0, kind_of(number), version, seed=number, samples=1)


def test_the_first_version_samples_eta_more_batches_than_the_others() -> None:
    house = House(eta=2)
    assert house.fill() == 3
    house.admission.advance(1)
    assert house.fill() == 1


def test_no_version_follows_before_its_batch_is_formed_and_none_is_skipped() -> None:
    admission = (house := House(eta=1)).admission
    completed = [admission.complete]
    with pytest.raises(ValueError, match="has yet to sample"):
        admission.advance(1)
    house.fill()
    completed.append(admission.complete)
    with pytest.raises(ValueError, match="version 2 after 0"):
        admission.advance(2)
    admission.advance(1)
    completed.append(admission.complete)
    assert completed == [False, True, False]


def test_at_the_end_nothing_is_waited_for_that_will_not_be_trained() -> None:
    house = House(eta=3, steps=2)
    assert house.fill() == 2
    for version in (1, 2):
        assert house.admission.complete
        house.admission.advance(version)


def test_a_group_of_two_versions_or_of_another_one_is_dropped_and_made_again() -> None:
    house = House(eta=1)
    house.fill()
    house.admission.advance(1)
    for versions in ((0, 1), (0,)):
        (lease,) = house.admission.grant(0, 99)
        assert not house.deliver(lease, *versions)
        assert house.ends[-1].fate == "inexact"
    assert house.fill() == 1


def test_what_a_natural_run_left_is_not_mixed_with_what_is_exact() -> None:
    house = House(eta=2)
    house.admission.resume(5, 6, {KIND: 50})
    house.admission.restore([a_group(lease_id(KIND, 49), KIND, [a_sample(KIND, version=4)])])
    assert house.admission.form() is None
    assert [end.fate for end in house.ends] == ["inexact"]
    assert house.fill() == 2  # batches 6 and 7, by version 5


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        (["staleness.eta=-1"], "needs a staleness to hold to"),
        (["staleness.eta=4", "staleness.max_staleness=3"], "must not be below staleness.eta"),
        (["staleness.mode=precise"], "natural or exact"),
    ],
)
def test_settings_that_contradict_it(setting: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load("tiny.yaml", ["staleness.mode=exact", *setting])


# -- in the intake -----------------------------------------------------------------------------------------------------


def exactly(*, eta: int, steps: int, save_every: int = 0, incarnation: int = 0) -> Config:
    config = small(eta=eta, steps=steps, save_every=save_every, incarnation=incarnation)
    return replace(config, staleness=replace(config.staleness, mode="exact"))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(exactly(eta=1, steps=6), tmp_path)
    await made.begin(0)
    await made.poll("trainer", 0, m.WantShare(0, 0))
    yield made
    await made.crash()


def ages(share: Share) -> set[int]:
    return {int(age) for batch in share.micro_batches for age in batch.staleness}


async def test_a_step_runs_while_its_version_samples_and_the_push_waits_for_both(stage: Stage) -> None:
    await stage.fulfil(await stage.lease())  # batches 0 and 1
    assert ages(await stage.train(0)) == {0}
    assert stage.published == [0, 1]
    leases = await stage.lease()  # batch 2, by version 1
    assert ages(await stage.train(1)) == {1}
    assert stage.published == [0, 1]
    await stage.fulfil(leases[:-1])
    assert stage.published == [0, 1]
    await stage.fulfil(leases[-1:])
    assert stage.published == [0, 1, 2]
    assert ages(await stage.train(2)) == {1}


async def test_no_step_begins_before_its_version_is_in_force(tmp_path: Path) -> None:
    """Otherwise it would end before the push does, and the next one would skip a version."""
    stage = Stage(exactly(eta=2, steps=6), tmp_path)
    await stage.begin(0, publishing=False)
    publisher = stage.spawn(stage.publish())
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.fulfil(await stage.lease())
    publisher.cancel()
    await stage.train(0)
    waiting = await stage.poll("trainer", 0, m.WantShare(0, 1))
    assert not waiting.done()
    stage.spawn(stage.publish())
    await stage.settle()
    assert stage.published == [0, 1]
    assert waiting.done()
    await stage.crash()


async def test_a_checkpoint_waits_for_what_its_successor_could_not_sample(tmp_path: Path) -> None:
    stage = Stage(exactly(eta=1, steps=6, save_every=1), tmp_path)
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    leases = await stage.lease()
    await stage.fulfil(leases[:6])
    assert stage.intake.admission.batched == 1
    waiting = await stage.poll("trainer", 0, m.WantShare(0, 0))
    assert not waiting.done()
    await stage.fulfil(leases[6:])
    assert waiting.done()
    await stage.crash()


@settings(max_examples=12, deadline=None)
@given(eta=st.integers(0, 3), every=st.integers(1, 3), crashes=st.lists(st.integers(0, 14), max_size=3))
async def test_it_survives_crashes(eta: int, every: int, crashes: list[int]) -> None:
    """An actor and a trainer in turns; `crashes`: after how many turns each process dies."""
    seen: dict[int, set[int]] = {}
    saved, steps = 0, 7
    with tempfile.TemporaryDirectory() as folder:
        for incarnation, turns in enumerate([*crashes, 200]):
            stage = Stage(exactly(eta=eta, steps=steps, save_every=every, incarnation=incarnation), Path(folder))
            if incarnation:
                stage.intake.resume(saved)
            await stage.begin(0)
            step, share = saved, await stage.poll("trainer", 0, m.WantShare(0, saved))
            asking = await stage.poll("actor", 0, m.WantLeases(2))
            for _ in range(turns):
                if step == steps:
                    break
                if asking.done():
                    leases = asking.result().leases
                    await stage.deliver(fulfil(leases[0], incarnation=incarnation))
                    for lease in leases[1:]:
                        await stage.deliver(fulfil(lease, incarnation=incarnation))
                    asking = await stage.poll("actor", 0, m.WantLeases(2))
                elif share.done():
                    reply = share.result()
                    seen.setdefault(step, set()).update(ages(reply.share))
                    await stage.ask("trainer", 0, m.StepDone(step, {"loss": 0.5}, 0.1))
                    step += 1
                    if reply.save:
                        await stage.save(step)
                        saved = step
                    share = await stage.poll("trainer", 0, m.WantShare(0, step))
                else:
                    raise AssertionError("nobody can go on")
            await stage.crash()
            if step == steps:
                break
    assert seen == {u: {min(u, eta)} for u in range(steps)}
