"""Admission and lease ledger under whatever actors, clock and learner may do, checked against a simple model."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common.types import Group, Kind, Lease
from learner.admission import LEAD_UNBOUNDED, Admission, Ended, Limits
from learner.lease_ledger import LeaseLedger
from learner.leases import kind_of
from tests.fakes.clock import FakeClock
from tests.fakes.groups import a_group, a_sample

QUOTA = {Kind.PROPOSE_DEDUCTION: 2, Kind.SOLVE_DEDUCTION: 1, Kind.SOLVE_INDUCTION: 3, Kind.PROPOSE_INDUCTION: 0}
TRAINED = tuple(kind for kind, size in QUOTA.items() if size)
TIMEOUT = 5.0
ACTORS = st.integers(0, 2)
STEPS = 4


class Run(RuleBasedStateMachine):
    """Actors hold leases and answer them in any order, or never; the learner trains batches in order."""

    @initialize(eta=st.integers(-1, 3), slack=st.integers(0, 3), exact=st.booleans())
    def begin(self, eta: int, slack: int, exact: bool) -> None:
        self.clock = FakeClock()
        self.ledger = LeaseLedger(Path(":memory:"), incarnation=0)
        self.ends: dict[int, Ended] = {}
        self.granted: dict[int, Lease] = {}  # newest attempt of every lease
        self.held: list[tuple[int, Lease]] = []  # what actors believe to hold, duplicates and all
        self.formed: list[list[Group]] = []
        self.trained = 0
        self.eta = eta
        bound = 1 << 30 if eta < 0 else eta + slack
        self.limits = Limits(eta, bound, TIMEOUT, STEPS, exact and eta >= 0)
        self.admission = Admission(QUOTA, self.limits, self.clock, self.make, self.end)
        self.bounds: dict[int, int] = {}  # max_staleness at the grants of a lease, the largest
        self.oldest: dict[int, int] = {}  # version, of what was delivered
        self.beyond: dict[Kind, int] = {}  # what eta had let in when it fell
        self.adapted = False

    def make(self, number: int, version: int) -> Lease:
        assert number not in self.granted
        self.ledger.granted(number, version)
        return Lease(number, 0, kind_of(number), version, seed=number, samples=1)

    def end(self, ended: Ended) -> None:
        assert ended.lease in self.granted
        assert ended.lease not in self.ends
        self.ends[ended.lease] = ended
        if ended.fate in ("stale", "cancelled"):
            oldest = self.oldest[ended.lease] if ended.fate == "stale" else self.granted[ended.lease].version
            assert self.admission.batched - oldest > self.bounds[ended.lease]
        self.ledger.ended(ended.lease, ended.attempt, ended.fate, ended.step)

    def take(self, actor: int, capacity: int) -> list[Lease]:
        leases = self.admission.grant(actor, capacity)
        assert len(leases) <= capacity
        for lease in leases:
            before = self.granted.get(lease.id)
            assert lease.id not in self.ends
            assert lease.version == self.admission.version
            assert before is None or (lease.attempt, lease.seed) == (before.attempt + 1, before.seed)
            self.granted[lease.id] = lease
            self.bounds[lease.id] = max(self.bounds.get(lease.id, 0), self.limits.max_staleness)
        return leases

    def form(self) -> None:
        """What the intake does after every delivery and version."""
        while (batch := self.admission.form()) is not None:
            ids = [group.lease for group in batch]
            assert ids == sorted(ids)
            assert Counter(group.kind for group in batch) == {k: n for k, n in QUOTA.items() if n}
            step = len(self.formed)
            oldest = [group.oldest_version for group in batch]
            bounds = [max(self.bounds[group.lease], self.limits.max_staleness) for group in batch]
            assert all(v is not None and step - v <= bound for v, bound in zip(oldest, bounds, strict=True))
            if self.eta == 0 and not self.adapted:
                assert oldest == [step] * len(batch)
            if self.limits.exact:
                assert oldest == [g.newest_version for g in batch] == [max(0, step - self.eta)] * len(batch)
            self.formed.append(batch)
            assert self.admission.batched == len(self.formed)

    # -- what may happen -----------------------------------------------------------------------------------------

    @rule(actor=ACTORS, capacity=st.integers(0, 12))
    def grant(self, actor: int, capacity: int) -> None:
        self.held += [(actor, lease) for lease in self.take(actor, capacity)]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=st.sampled_from(["ok", "ok", "ok", "ok", "infra", "again"]))
    def deliver(self, data: st.DataObject, outcome: str) -> None:
        at = data.draw(st.integers(0, len(self.held) - 1))
        _, lease = self.held[at]
        if outcome != "again":
            del self.held[at]
        version = data.draw(st.integers(lease.version, self.admission.version))
        failure = outcome if outcome == "infra" else ""
        if self.admission.is_open(lease.id):
            self.oldest[lease.id] = version
        samples = [] if failure else [a_sample(lease.kind, version=version)]
        opened = self.admission.is_open(lease.id)
        self.admission.deliver(a_group(lease.id, lease.kind, samples, attempt=lease.attempt, failure=failure))
        superseded = lease.attempt < self.granted[lease.id].attempt
        assert self.admission.is_open(lease.id) == (opened and bool(failure) and superseded)
        self.form()

    @rule(actor=ACTORS)
    def die(self, actor: int) -> None:
        self.held = [(a, lease) for a, lease in self.held if a != actor]
        self.admission.actor_left(actor)

    @rule(actor=ACTORS)
    def fall_silent(self, actor: int) -> None:
        """Its place is given up, but what it had under way will still arrive."""
        self.admission.actor_left(actor)

    @rule(actor=ACTORS)
    def renew(self, actor: int) -> None:
        self.admission.renew(actor, [lease.id for a, lease in self.held if a == actor])

    @rule(seconds=st.floats(0.0, 2 * TIMEOUT))
    def wait(self, seconds: float) -> None:
        asyncio.run(self.clock.advance(seconds))
        self.admission.expire()

    @precondition(lambda self: self.trained < len(self.formed) and self.trained <= self.admission.version)
    @rule()
    def train(self) -> None:
        self.admission.trained(self.trained, self.formed[self.trained])
        self.trained += 1

    @rule(data=st.data())
    def advance(self, data: st.DataObject) -> None:
        most = min(self.trained, self.admission.version + self.admission.complete)
        version = data.draw(st.integers(self.admission.version, most if self.limits.exact else self.trained))
        before = set(self.ends)
        late = self.admission.advance(version)
        assert {lease for _, lease in late} == set(self.ends) - before
        self.form()

    @precondition(lambda self: self.eta >= 0 and not self.limits.exact)
    @rule(eta=st.integers(0, 3), slack=st.integers(0, 3))
    def adapt(self, eta: int, slack: int) -> None:
        """staleness.auto: nothing ends by it."""
        before, self.adapted = set(self.ends), True
        self.beyond = {kind: self.total(kind) for kind in TRAINED}
        self.admission.adapt(eta, eta + slack)
        self.eta, self.limits = eta, self.admission.limits
        self.form()
        assert set(self.ends) == before

    def total(self, kind: Kind) -> int:
        admission = self.admission
        return admission.open[kind] + admission.waiting[kind] + admission.batched * QUOTA[kind]

    # -- what must hold ------------------------------------------------------------------------------------------

    @invariant()
    def the_gate_holds(self) -> None:
        admission = self.admission
        for kind in TRAINED:
            total = self.total(kind)
            in_hand = total - admission.batched * QUOTA[kind]
            assert total <= STEPS * QUOTA[kind]
            if self.eta < 0:
                assert in_hand <= LEAD_UNBOUNDED * QUOTA[kind]
            else:
                assert total <= max((admission.version + self.eta + 1) * QUOTA[kind], self.beyond.get(kind, 0))
        assert admission.open[Kind.PROPOSE_INDUCTION] == 0

    @invariant()
    def every_lease_is_in_one_place(self) -> None:
        admission = self.admission
        waiting = {group.lease for group in admission.waiting_groups()}
        batched = {group.lease for batch in self.formed[self.trained :] for group in batch}
        opened = {lease for lease in self.granted if admission.is_open(lease)}
        places = [opened, waiting, batched, set(self.ends)]
        assert sum(map(len, places)) == len(self.granted) == len(set().union(*places))
        assert sum(admission.open.values()) == len(opened)
        assert self.ledger.fates().get("open", 0) == len(opened | waiting | batched)

    @invariant()
    def there_is_always_something_to_do(self) -> None:
        """Lossless: if no lease is open or to be had, a batch can be trained, a version can go out, or all is done."""
        admission = self.admission
        trainable = self.trained < len(self.formed) and self.trained <= admission.version
        if admission.open or trainable or (admission.version < self.trained and admission.complete):
            return
        if admission.batched < STEPS:
            for lease in self.take(9, 1):
                self.held.append((9, lease))
                return
            raise AssertionError("nothing is open, nothing may begin and no batch is there to be trained")

    def teardown(self) -> None:
        if not hasattr(self, "admission"):
            return
        self.admission.close()
        for step in range(self.trained, len(self.formed)):
            self.admission.trained(step, self.formed[step])
        assert set(self.ends) == set(self.granted)
        assert "open" not in self.ledger.fates()
        assert sum(self.ledger.fates().values()) == len(self.granted)
        self.ledger.close()


Run.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestAdmission = Run.TestCase
