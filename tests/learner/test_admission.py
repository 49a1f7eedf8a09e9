"""Admission, by hand: who may begin, what is trained together, what comes too late."""

from __future__ import annotations

import pytest

from common.types import Kind, Lease
from learner.admission import LEAD_UNBOUNDED, Admission, Ended, Limits
from learner.leases import kind_of, lease_id
from tests.fakes.clock import FakeClock
from tests.fakes.groups import a_group, a_sample

PROPOSE, SOLVE = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION
TIMEOUT = 10.0


class House:
    """An admission with two groups to propose and one to solve in a batch, and what came out of it."""

    def __init__(self, eta: int = 1, max_staleness: int | None = None, steps: int = 100) -> None:
        self.clock = FakeClock()
        self.ends: list[Ended] = []
        stale = max_staleness if max_staleness is not None else 2 * eta if eta >= 0 else 1 << 30
        self.admission = Admission(
            {PROPOSE: 2, SOLVE: 1, Kind.SOLVE_INDUCTION: 0},
            Limits(eta, stale, TIMEOUT, steps),
            self.clock,
            lambda number, version: Lease(number, 0, kind_of(number), version, seed=number, samples=1),
            self.ends.append,
        )

    def deliver(self, lease: Lease, *, version: int | None = None, failure: str = "") -> bool:
        at = lease.version if version is None else version
        samples = [] if failure else [a_sample(lease.kind, version=at)]
        return self.admission.deliver(a_group(lease.id, lease.kind, samples, attempt=lease.attempt, failure=failure))

    def fates(self) -> dict[int, str]:
        assert len({end.lease for end in self.ends}) == len(self.ends)
        return {end.lease: end.fate for end in self.ends}


def kinds(leases: list[Lease]) -> list[Kind]:
    return [lease.kind for lease in leases]


def test_the_gate_holds_eta_plus_one_batches_of_each_kind() -> None:
    granted = House(eta=1).admission.grant(actor=0, capacity=99)
    assert kinds(granted).count(PROPOSE) == 4
    assert kinds(granted).count(SOLVE) == 2
    assert [lease.id for lease in granted if lease.kind is SOLVE] == [lease_id(SOLVE, 0), lease_id(SOLVE, 1)]


def test_the_kind_that_lags_its_quota_most_comes_first() -> None:
    # loads after each grant, as a share of a batch: (½, 0) → (½, 1) → (1, 1) → (1½, 1) → (1½, 2) → (2, 2)
    assert kinds(House(eta=1).admission.grant(0, 99)) == [PROPOSE, SOLVE, PROPOSE, PROPOSE, SOLVE, PROPOSE]


def test_capacity_is_a_limit() -> None:
    house = House()
    assert len(house.admission.grant(0, 3)) == 3
    assert house.admission.grant(0, 0) == []
    assert sum(house.admission.open.values()) == 3


def test_the_gate_moves_with_the_version_not_with_training() -> None:
    house = House(eta=0)
    leases = house.admission.grant(0, 99)
    assert len(leases) == 3
    for lease in leases:
        assert house.deliver(lease)
    assert house.admission.form() is not None
    assert house.admission.grant(0, 99) == []
    house.admission.advance(1)
    assert [lease.version for lease in house.admission.grant(0, 99)] == [1, 1, 1]


def test_without_bound_only_memory_limits_what_is_open() -> None:
    house = House(eta=-1)
    leases = house.admission.grant(0, 1000)
    assert len(leases) == LEAD_UNBOUNDED * 3
    for lease in leases:
        house.deliver(lease)
    assert house.admission.grant(0, 99) == []
    while house.admission.form() is not None:
        pass
    assert house.admission.batched == LEAD_UNBOUNDED
    assert len(house.admission.grant(0, 1000)) == LEAD_UNBOUNDED * 3


def test_nothing_is_granted_that_the_run_will_not_train() -> None:
    house = House(eta=5, steps=2)
    assert len(house.admission.grant(0, 99)) == 2 * 3


def test_a_batch_takes_the_oldest_leases_and_is_sorted() -> None:
    house = House(eta=1)
    leases = house.admission.grant(0, 99)
    by_age = {kind: [lease for lease in leases if lease.kind is kind] for kind in (PROPOSE, SOLVE)}
    for lease in [*reversed(by_age[PROPOSE]), by_age[SOLVE][1]]:
        house.deliver(lease)
    batch = house.admission.form()
    assert batch is not None
    expected = [by_age[PROPOSE][0].id, by_age[PROPOSE][1].id, by_age[SOLVE][1].id]
    assert [group.lease for group in batch] == sorted(expected)
    assert house.admission.waiting[PROPOSE] == 2
    assert house.admission.form() is None


def test_a_batch_waits_for_the_slowest_kind() -> None:
    house = House(eta=1)
    leases = house.admission.grant(0, 99)
    for lease in leases:
        if lease.kind is PROPOSE:
            house.deliver(lease)
    assert house.admission.form() is None


def test_trained_leases_end_with_their_step() -> None:
    house = House(eta=0)
    for lease in house.admission.grant(0, 99):
        house.deliver(lease)
    batch = house.admission.form()
    assert batch is not None and house.ends == []
    house.admission.trained(0, batch)
    assert {(end.fate, end.step) for end in house.ends} == {("trained", 0)}
    assert len(house.fates()) == 3


def test_the_first_result_wins_and_later_ones_are_counted() -> None:
    house = House()
    (lease,) = house.admission.grant(0, 1)
    assert house.deliver(lease)
    assert not house.deliver(lease)
    assert house.admission.counts["duplicates"] == 1
    assert sum(house.admission.waiting.values()) == 1


def test_a_failed_group_returns_its_slot() -> None:
    house = House(eta=0)
    leases = house.admission.grant(0, 99)
    assert not house.deliver(leases[0], failure="infra")
    assert house.fates() == {leases[0].id: "infra"}
    (again,) = house.admission.grant(0, 99)
    assert again.kind is leases[0].kind
    assert again.id > leases[0].id


def test_what_an_actor_leaves_behind_is_granted_again_with_equal_material() -> None:
    house = House()
    (mine,) = house.admission.grant(0, 1)
    (other,) = house.admission.grant(1, 1)
    assert house.admission.actor_left(0) == 1
    assert house.admission.actor_left(0) == 0
    (again,) = house.admission.grant(2, 1)
    assert (again.id, again.seed, again.attempt) == (mine.id, mine.seed, 1)
    assert house.deliver(other)
    assert house.deliver(again)
    assert not house.deliver(mine)


def test_a_late_first_attempt_may_still_win() -> None:
    house = House()
    (mine,) = house.admission.grant(0, 1)
    house.admission.actor_left(0)
    (again,) = house.admission.grant(1, 1)
    assert house.deliver(mine)
    assert not house.deliver(again)


def test_a_result_that_comes_before_the_second_grant_spares_it() -> None:
    house = House(eta=0)
    (mine,) = house.admission.grant(0, 1)
    house.admission.actor_left(0)
    assert house.deliver(mine)
    assert mine.id not in {lease.id for lease in house.admission.grant(1, 99)}


def test_the_failure_of_a_superseded_attempt_says_nothing() -> None:
    house = House()
    (mine,) = house.admission.grant(0, 1)
    house.admission.actor_left(0)
    (again,) = house.admission.grant(1, 1)
    assert not house.deliver(mine, failure="aborted")
    assert house.admission.is_open(mine.id)
    assert house.deliver(again)
    assert house.ends == []


async def test_silent_leases_expire_and_renewed_ones_do_not() -> None:
    house = House()
    silent, renewed = house.admission.grant(0, 2)
    await house.clock.advance(TIMEOUT)
    house.admission.renew(0, [renewed.id, 12345])
    house.admission.renew(1, [silent.id])
    assert house.admission.expire() == 0
    await house.clock.advance(1.0)
    assert house.admission.expire() == 1
    assert [lease.id for lease in house.admission.grant(1, 1)] == [silent.id]
    await house.clock.advance(TIMEOUT)
    assert house.admission.expire() == 1


def test_a_group_is_as_old_as_its_oldest_token() -> None:
    house = House(eta=0)
    leases = house.admission.grant(0, 99)
    for lease in leases:
        house.deliver(lease)
    house.admission.form()
    house.admission.advance(1)
    fresh, late, *_ = house.admission.grant(0, 99)
    assert house.deliver(fresh, version=1)
    assert not house.deliver(late, version=0)
    assert house.fates()[late.id] == "stale"


def test_waiting_groups_that_aged_are_dropped_whole_when_a_batch_is_formed() -> None:
    house = House(eta=2, max_staleness=1)
    leases = house.admission.grant(0, 99)
    proposals = [lease for lease in leases if lease.kind is PROPOSE]
    solves = [lease for lease in leases if lease.kind is SOLVE]
    for lease in proposals[:4]:
        house.deliver(lease, version=0)
    for lease in solves[:2]:
        house.deliver(lease, version=0)
    assert house.admission.form() is not None  # staleness 0
    assert house.admission.form() is not None  # staleness 1
    assert not house.deliver(proposals[4], version=0)  # would be 2
    assert house.fates() == {proposals[4].id: "stale"}


def test_waiting_groups_of_every_kind_age() -> None:
    house = House(eta=2, max_staleness=0)
    leases = house.admission.grant(0, 99)
    for lease in [lease for lease in leases if lease.kind is PROPOSE][:3]:
        house.deliver(lease, version=0)
    house.deliver(next(lease for lease in leases if lease.kind is SOLVE), version=0)
    assert house.admission.form() is not None
    assert house.admission.waiting == {PROPOSE: 1, SOLVE: 0}
    assert house.admission.form() is None
    assert house.admission.waiting == {PROPOSE: 0, SOLVE: 0}
    assert list(house.fates().values()) == ["stale"]


def test_open_leases_that_cannot_meet_the_bound_are_cancelled_when_the_version_changes() -> None:
    house = House(eta=1, max_staleness=0)
    leases = house.admission.grant(0, 99)
    for lease in leases[:3]:
        house.deliver(lease)
    assert house.admission.form() is not None
    cancelled = house.admission.advance(1)
    assert cancelled == [(0, lease.id) for lease in leases[3:]]
    assert set(house.fates().values()) == {"cancelled"}
    assert not house.deliver(leases[3])
    assert house.admission.counts["duplicates"] == 1


def test_a_returned_lease_may_be_cancelled_and_is_then_not_granted_again() -> None:
    house = House(eta=1, max_staleness=0)
    leases = house.admission.grant(0, 99)
    for lease in leases[:3]:
        house.deliver(lease)
    house.admission.form()
    house.admission.actor_left(0)
    assert {actor for actor, _ in house.admission.advance(1)} == {None}
    assert not {lease.id for lease in house.admission.grant(1, 99)} & {lease.id for lease in leases}


def test_a_version_never_goes_back() -> None:
    house = House()
    house.admission.advance(2)
    house.admission.advance(2)
    with pytest.raises(ValueError, match="version 1 after 2"):
        house.admission.advance(1)


def test_evaluation_leases_take_no_slot_never_age_and_end_as_evaluated() -> None:
    house = House(eta=0)
    admission = house.admission
    made = Lease(admission.new_id(Kind.EVAL), 0, Kind.EVAL, 0, seed=1, samples=1)
    admission.grant_apart(5, made)
    assert len(admission.grant(0, 99)) == 3
    admission.actor_left(0)
    admission.actor_left(5)
    assert admission.open[Kind.EVAL] == 1
    regranted = admission.grant(6, 99)
    again = next(lease for lease in regranted if lease.kind is Kind.EVAL)
    assert (again.id, again.attempt) == (made.id, 1)
    admission.advance(7)
    assert house.deliver(again)
    assert house.fates()[made.id] == "evaluated"


def test_a_seed_ends_as_seeded_and_while_there_are_seeds_only_what_came_back_is_granted() -> None:
    house = House(eta=0)
    admission = house.admission
    made = Lease(admission.new_id(Kind.SEED), 0, Kind.SEED, 0, seed=1, samples=0)
    admission.grant_apart(5, made)
    assert admission.grant(0, 99, new=False) == []
    admission.actor_left(5)
    (again,) = admission.grant(0, 99, new=False)
    assert (again.id, again.attempt, again.version) == (made.id, 1, 0)
    assert house.deliver(again)
    assert house.fates()[made.id] == "seeded"
    assert len(admission.grant(0, 99)) == 3


def test_close_ends_whatever_is_left() -> None:
    house = House()
    leases = house.admission.grant(0, 4)
    house.deliver(leases[0])
    house.admission.close()
    assert house.fates() == {lease.id: "unused" for lease in leases}
    assert house.admission.open == {}
    assert not any(house.admission.waiting.values())
    house.admission.close()
    assert len(house.ends) == 4


def test_after_a_resume_numbers_and_counts_go_on() -> None:
    house = House(eta=0)
    house.admission.resume(4, 5, {PROPOSE: 17})
    assert house.admission.grant(0, 99) == []
    house.admission.advance(5)
    leases = house.admission.grant(0, 99)
    assert [lease.id for lease in leases if lease.kind is PROPOSE] == [lease_id(PROPOSE, 17), lease_id(PROPOSE, 18)]
    assert {lease.version for lease in leases} == {5}


def test_restored_groups_fill_their_slots() -> None:
    house = House(eta=0)
    house.admission.resume(0, 0, {})
    house.admission.restore([a_group(lease_id(SOLVE, 40), SOLVE, [a_sample(SOLVE)])])
    leases = house.admission.grant(0, 99)
    assert kinds(leases) == [PROPOSE, PROPOSE]
    for lease in leases:
        house.deliver(lease)
    assert house.admission.form() is not None
