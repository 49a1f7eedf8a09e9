"""Admission: which episodes may begin, which groups are trained together, which come too late.

Pure logic under an injected clock; no sockets, no files. Words and rules are those of docs/design.md:

* gate, per kind k:  open + waiting + batched ≤ (v + η + 1) · G_k   (η unbounded: open + waiting ≤ 8 · G_k)
* a batch is formed when every kind has G_k waiting groups: oldest lease first, then sorted by lease id
* a group staler than `max_staleness` at the step that would train it is dropped whole, never cut
* exact: no version follows v before the batches up to v + η are formed (`complete`). Then nothing is open or waiting,
  so version v and no other samples batch v + η: every token trained at step u ≥ η is η versions old, and u versions
  at the first η steps, which version 0 samples
* every granted lease ends exactly once: trained, dropped (with its reason) or unused
* η and `max_staleness` may change while the run goes on (`adapt`): a smaller η grants less until the version has caught
  up, and takes nothing back; a group keeps the bound that was in force when its lease was granted, if that was larger

One counter for all kinds would deadlock: a fast kind could fill it while the batch waits for a slow one.
What a group costs here depends neither on how many actors there are nor on how many groups wait.
What it does not do: keep groups across a restart (the journal does) or decide what a lease contains (LeaseMaker).
"""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import takewhile

from common.clock import Clock
from common.config import Config
from common.types import Group, Kind, Lease
from learner.leases import kind_of, lease_id

APART = {Kind.EVAL: "evaluated", Kind.SEED: "seeded"}  # fates of the kinds that no quota counts
LEAD_UNBOUNDED = 8  # batches that may be open or waiting when η is unbounded, so that memory stays bounded


def quota(config: Config) -> dict[Kind, int]:
    """G_k, groups of each kind in a batch."""
    return {k: config.algorithm.proposals if k.proposes else config.algorithm.solves for k in config.algorithm.streams}


@dataclass(frozen=True, slots=True)
class Limits:
    """η, the staleness bound, the lease timeout in seconds and the number of batches of the whole run."""

    eta: int
    max_staleness: int
    lease_timeout: float
    steps: int
    exact: bool = False

    @classmethod
    def of(cls, config: Config) -> Limits:
        lag = config.staleness
        return cls(lag.eta, lag.bound, lag.lease_timeout, config.learner.steps, lag.mode == "exact")


@dataclass(slots=True)
class _Open:
    lease: Lease
    actor: int | None  # None: waits to be granted again
    deadline: float


@dataclass(frozen=True, slots=True)
class Ended:
    """The one end of a lease. `fate` is trained, discarded, unused, evaluated, seeded or the reason of a drop."""

    lease: int
    attempt: int
    fate: str
    step: int = -1


class Admission:
    """Counts leases in and groups out.

    `make(lease_id, version)` supplies the material of a new lease. `ended` receives each lease's end, once.
    """

    def __init__(
        self,
        quota: Mapping[Kind, int],
        limits: Limits,
        clock: Clock,
        make: Callable[[int, int], Lease],
        ended: Callable[[Ended], None],
    ) -> None:
        self.quota = {kind: count for kind, count in quota.items() if count > 0}
        self.limits = limits
        self.version = 0
        self.batched = 0  # batches formed so far; the next batch trains at this step
        self.counts: Counter[str] = Counter()
        self.forbidden = 0  # leases wanted that η alone forbade
        self._clock = clock
        self._make = make
        self._ended = ended
        self._open: dict[int, _Open] = {}
        self._open_by_kind: Counter[Kind] = Counter()
        self._bound: dict[int, int] = {}  # of leases that have not ended: max_staleness when they were granted
        self._held: dict[int, None] = {}  # open leases that an actor has, the next to expire first
        self._again: deque[int] = deque()
        self._waiting: dict[Kind, dict[int, Group]] = {kind: {} for kind in self.quota}
        self._checked = True  # whether all that wait can be in the next batch
        self._next: dict[Kind, int] = dict.fromkeys(Kind, 0)
        self._first = 0  # version that this process began with

    # -- leases --------------------------------------------------------------------------------------------------

    def grant(self, actor: int, capacity: int, *, new: bool = True) -> list[Lease]:
        """At most `capacity` leases for `actor`: returned ones first, then the kind that lags its quota most.

        Unless `new`, returned ones only.
        """
        leases: list[Lease] = []
        while len(leases) < capacity:
            lease = self._returned() or (self._new() if new else None)
            if lease is None:
                break
            leases.append(self._hold(lease, actor))
        return leases

    def grant_apart(self, actor: int, lease: Lease) -> Lease:
        """Register a lease to evaluate or to seed, which no quota counts."""
        return self._hold(lease, actor)

    def _hold(self, lease: Lease, actor: int) -> Lease:
        if lease.id not in self._open:
            self._open_by_kind[kind_of(lease.id)] += 1
        self._bound[lease.id] = self._bound_of(lease.id)
        self._open[lease.id] = _Open(lease, actor, self._clock.now() + self.limits.lease_timeout)
        self._held.pop(lease.id, None)
        self._held[lease.id] = None
        return lease

    def _release(self, lease: int) -> None:
        del self._open[lease]
        self._held.pop(lease, None)
        self._open_by_kind[kind_of(lease)] -= 1

    def new_id(self, kind: Kind) -> int:
        sequence = self._next[kind]
        self._next[kind] = sequence + 1
        return lease_id(kind, sequence)

    def _returned(self) -> Lease | None:
        while self._again:
            held = self._open.get(self._again.popleft())
            if held is not None and held.actor is None:
                return dataclasses.replace(held.lease, attempt=held.lease.attempt + 1, version=self.version)
        return None

    def _new(self) -> Lease | None:
        best: Kind | None = None
        best_load = 0.0
        unfinished = False
        for kind, size in self.quota.items():
            used = self._open_by_kind[kind] + len(self._waiting[kind]) + self.batched * size
            if used >= self.limits.steps * size:
                continue
            unfinished = True
            if self.limits.eta < 0:
                room = used - self.batched * size < LEAD_UNBOUNDED * size
            else:
                room = used < (self.version + self.limits.eta + 1) * size
            if room and (best is None or used / size < best_load):
                best, best_load = kind, used / size
        self.forbidden += best is None and unfinished
        return None if best is None else self._make(self.new_id(best), self.version)

    def renew(self, actor: int, leases: Iterable[int]) -> None:
        deadline = self._clock.now() + self.limits.lease_timeout
        for lease in leases:
            held = self._open.get(lease)
            if held is not None and held.actor == actor:
                held.deadline = deadline
                del self._held[lease]
                self._held[lease] = None

    def expire(self) -> int:
        """Return leases that went silent, to be granted again. Returns how many."""
        now = self._clock.now()
        return self._give_back(list(takewhile(lambda lease: self._open[lease].deadline < now, self._held)))

    def actor_left(self, actor: int) -> int:
        return self._give_back([lease for lease in self._held if self._open[lease].actor == actor])

    def _give_back(self, leases: list[int]) -> int:
        for lease in leases:
            self._open[lease].actor = None
            del self._held[lease]
            self._again.append(lease)
        self.counts["returned"] += len(leases)
        return len(leases)

    # -- groups --------------------------------------------------------------------------------------------------

    def is_open(self, lease: int) -> bool:
        return lease in self._open

    def deliver(self, group: Group) -> bool:
        """Take a group in. False: it was late or a duplicate, or its lease ended by it as a drop.

        The failure of an attempt that was granted again says nothing about the one under way, and is ignored.
        """
        held = self._open.get(group.lease)
        if held is None or (group.failure and group.attempt < held.lease.attempt):
            self.counts["duplicates"] += 1
            return False
        self._release(group.lease)
        reason = group.failure or self._misfit(group)
        if reason:
            self._end(group.lease, group.attempt, reason)
            return False
        if group.kind in APART:
            self._end(group.lease, group.attempt, APART[group.kind])
        else:
            self._waiting[group.kind][group.lease] = group
        return True

    def restore(self, groups: Iterable[Group], bound: int = 0) -> None:
        """Put journaled groups back among the waiting; their leases count as granted, under `bound`, and accepted."""
        for group in groups:
            self._bound[group.lease] = bound
            self._waiting[group.kind][group.lease] = group
            self._checked = False

    def form(self) -> list[Group] | None:
        """The next batch, sorted by lease id, or None while a kind is short or the run has all its batches."""
        if not self._checked:
            self._drop_misfits()
        short = any(len(groups) < self.quota[kind] for kind, groups in self._waiting.items())
        if short or self.batched >= self.limits.steps:
            return None
        batch: list[Group] = []
        for kind, groups in self._waiting.items():
            batch += [groups.pop(lease) for lease in sorted(groups)[: self.quota[kind]]]
        batch.sort(key=lambda group: group.lease)
        self.batched += 1
        self._checked = False
        return batch

    def _drop_misfits(self) -> None:
        """What waits gets too old with a batch that is formed, and never else."""
        for groups in self._waiting.values():
            for lease, reason in [(i, why) for i, g in groups.items() if (why := self._misfit(g))]:
                group = groups.pop(lease)
                self._end(group.lease, group.attempt, reason)
        self._checked = True

    def trained(self, step: int, batch: Iterable[Group], fate: str = "trained") -> None:
        for group in batch:
            self._end(group.lease, group.attempt, fate, step)

    # -- limits --------------------------------------------------------------------------------------------------

    def adapt(self, eta: int, max_staleness: int) -> None:
        """Go on with these limits, of what is granted from here on."""
        self.limits = dataclasses.replace(self.limits, eta=eta, max_staleness=max_staleness)

    def _bound_of(self, lease: int) -> int:
        return max(self._bound.get(lease, 0), self.limits.max_staleness)

    # -- versions ------------------------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """Whether the next version may go into service; always, unless staleness is exact."""
        limits = self.limits
        return not limits.exact or self.batched >= min(self.version + limits.eta + 1, limits.steps)

    def advance(self, version: int) -> list[tuple[int | None, int]]:
        """Every serving engine has finished loading `version`.

        Returns (actor, lease) of open leases that can no longer meet the staleness bound; they have ended.
        """
        if version < self.version:
            raise ValueError(f"version {version} after {self.version}")
        if self.limits.exact and version > self.version + self.complete:
            raise ValueError(f"version {version} after {self.version}, which has yet to sample its batch")
        self.version = version
        late = [
            (held.actor, lease)
            for lease, held in self._open.items()
            if held.lease.kind not in APART and self.batched - held.lease.version > self._bound_of(lease)
        ]
        for _, lease in late:
            attempt = self._open[lease].lease.attempt
            self._release(lease)
            self._end(lease, attempt, "cancelled")
        return late

    def resume(self, version: int, batched: int, following: Mapping[Kind, int]) -> None:
        """Start at `version` with `batched` batches formed; new leases of each kind count from `following`."""
        self.version, self.batched, self._first = version, batched, version
        self._next.update(following)

    def close(self) -> None:
        """The run is over: what is open or waiting ends unused."""
        for lease, held in list(self._open.items()):
            self._end(lease, held.lease.attempt, "unused")
        for groups in self._waiting.values():
            for group in groups.values():
                self._end(group.lease, group.attempt, "unused")
            groups.clear()
        self._open.clear()
        self._held.clear()
        self._open_by_kind.clear()
        self._again.clear()

    @property
    def open(self) -> Counter[Kind]:
        return +self._open_by_kind

    @property
    def holders(self) -> dict[int | None, Counter[Kind]]:
        """Open leases by actor; None: given back and not granted again."""
        held: dict[int | None, Counter[Kind]] = {}
        for lease in self._open.values():
            held.setdefault(lease.actor, Counter())[lease.lease.kind] += 1
        return held

    @property
    def waiting(self) -> dict[Kind, int]:
        return {kind: len(groups) for kind, groups in self._waiting.items()}

    def waiting_groups(self) -> list[Group]:
        return [group for groups in self._waiting.values() for group in groups.values()]

    def _misfit(self, group: Group) -> str:
        """Why the group cannot be in the next batch; empty if it can."""
        oldest = group.oldest_version
        if group.kind in APART or oldest is None:
            return ""
        if self.limits.exact and not oldest == group.newest_version == max(self._first, self.batched - self.limits.eta):
            return "inexact"
        return "stale" if self.batched - oldest > self._bound_of(group.lease) else ""

    def _end(self, lease: int, attempt: int, fate: str, step: int = -1) -> None:
        self._bound.pop(lease, None)
        self.counts[f"ended/{fate}"] += 1
        self._ended(Ended(lease, attempt, fate, step))
