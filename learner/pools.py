"""What leases draw from: the tasks of one type in the order in which they entered, and the rules of drawing.

Invariant: a pool is a function of the sequence of its `add` calls, so folding the same events gives the same pool.

With a limit a pool holds a uniform sample of everything that ever entered (the tasks of the `limit` lowest priorities,
which are digests of run seed and task), so that late tasks have the chance of early ones. The official code keeps the
first 16,384 tasks and takes no more.

Drawing is by lease: each draws for itself with its own generator, whereas the official code draws a whole batch. In
expectation they are equal, see `Pool.task`; ours can draw a task twice where theirs would not.
"""

from __future__ import annotations

import heapq
import random
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from common.config import AlgorithmConfig
from common.seeds import derive
from common.types import Task


@dataclass(frozen=True, slots=True)
class Entry:
    """A task, the version of the book with which it came, and its place in the order of coming."""

    order: int
    version: int
    task: Task


class Pool:
    """`seed`: of the run; it decides what a limited pool keeps."""

    def __init__(self, limit: int, seed: int) -> None:
        self._limit, self._seed = limit, seed
        self._entries: list[Entry] = []  # by order, and therefore by version
        self._worst: list[tuple[int, int]] = []  # heap of (-priority, order)
        self.added = 0  # tasks that ever entered

    def add(self, version: int, task: Task) -> None:
        """Versions must not decrease."""
        entry = Entry(self.added, version, task)
        self.added += 1
        self._entries.append(entry)
        if self._limit == 0:
            return
        heapq.heappush(self._worst, (-derive(self._seed, "reservoir", task.key), entry.order))
        if len(self._entries) > self._limit:
            _, order = heapq.heappop(self._worst)
            del self._entries[bisect_left(self._entries, order, key=lambda e: e.order)]

    @property
    def entries(self) -> Sequence[Entry]:
        return self._entries

    def task(self, rng: random.Random, config: AlgorithmConfig, version: int) -> Task:
        """One task for a solver, at `version`; new are tasks of the last `window` versions. IndexError if empty.

        max_new: the official batch of B holds min(B, new) new tasks and fills up from all; here a lease draws a new
        one with probability min(1, new / B). half_new: one half of the batch; here with probability 1/2.
        recency: with weight version + 1 (the official weight is the version, which leaves seeds out).
        """
        found = self._entries
        if config.task_sampling == "recency":
            return rng.choices(found, [e.version + 1 for e in found])[0].task
        if config.task_sampling in ("max_new", "half_new"):
            first = bisect_left(found, version - config.window + 1, key=lambda e: e.version)
            new = len(found) - first
            share = 0.5 if config.task_sampling == "half_new" else new / max(1, config.solves)
            if new and rng.random() < share:
                found = found[first:]
        return rng.choice(found).task


def references(rng: random.Random, entries: Sequence[Entry], count: int, sampling: str) -> tuple[Task, ...]:
    """At most `count` of `entries` without replacement: uniform, or by recency with weight version + 1.

    Recency draws one after the other, each in proportion to its weight among those left; that is the order in which
    clocks with these rates ring.
    """
    if sampling == "recency":
        drawn = heapq.nsmallest(count, entries, key=lambda e: rng.expovariate(e.version + 1))
    else:
        drawn = rng.sample(entries, min(count, len(entries)))
    return tuple(entry.task for entry in drawn)


def components(rng: random.Random, entries: Iterable[Entry], count: int) -> tuple[Task, ...]:
    """At most `count` of `entries`, none a composite, and no program twice; uniform without replacement."""
    simple = {entry.task.program: entry.task for entry in entries if not entry.task.composite}
    return tuple(rng.sample(list(simple.values()), min(count, len(simple))))
