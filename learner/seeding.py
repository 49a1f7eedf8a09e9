"""Seeding: the base model proposes the tasks that the book starts with (Absolute Zero, section 3.2).

Leases of kind `seed`, all before the first lease that is trained: nothing is solved, rewarded or trained. It goes in
rounds: deduction, abduction and, where there is such, error deduction side by side, then induction, whose programs come
from the first two. The valid proposals of a round enter the book at version 0, in the order of the round, once the
round is complete; the next round draws its references from them. So the seeds depend on the model, the configuration
and the run's seed, not on timing.

With `seeds.load` the rows of a file come first, in rounds of their own: what they say of outputs is a claim, and each
is executed before it counts. What they leave missing of `seeds.tasks` is proposed; all valid rows enter, also more.

The book has the state: it tells how many rows were read and proposals made, and what became of them, so that seeding
goes on after a crash with the round it was in. The file must be as it was.

Departures from the official code: deduction and abduction are proposed each for itself, where theirs share one set of
seeds; a copy never enters; an induction program is drawn and not taken in turn; and a model that cannot do it ends the
run with a report where theirs would go on for ever.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import seed_rows
from common.config import Config
from common.errors import ConfigError, PartFailed
from common.types import Group, Status, Task, TaskType
from learner.leases import blank
from learner.task_book import Seed, TaskBook

log = logging.getLogger(__name__)

ROUND = 64  # proposals of a type in a round, at most
SPARE = 8  # proposals beyond twice of what is missing: the last rounds are not of one proposal each
ATTEMPTS = 3  # failed groups of one proposal, after which it counts as one that came to nothing

_STAGES = ((TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.ERROR), (TaskType.INDUCTION,))


@dataclass(frozen=True, slots=True)
class Slot:
    """Number `number` of its type, rows before proposals. `task`: the row to validate, or a blank one, to propose."""

    number: int
    task: Task

    @property
    def loaded(self) -> bool:
        return bool(self.task.inputs)


class Seeding:
    """What is to be proposed, and what came of it.

    ConfigError for a file that cannot be read or written. `begin` and `deliver` raise PartFailed when the tries are
    used up; it stays active then and has nothing more to give.
    """

    def __init__(self, config: Config, book: TaskBook) -> None:
        self._settings, self._types, self._book = config.seeds, config.algorithm.task_types, book
        rows = seed_rows.read(Path(config.seeds.load)) if config.seeds.load else ()
        strange = next((row.type for row in rows if row.type not in self._types), None)
        if strange is not None:
            raise ConfigError(
                f"{config.seeds.load} has {strange} tasks, which this run does not have: set algorithm.{strange}=true "
                "or leave them out"
            )
        self._rows = {t: [row for row in rows if row.type is t] for t in self._types}
        self._slots: list[Slot] = []  # the round, in its order
        self._results: dict[Slot, Seed] = {}
        self._todo: deque[Slot] = deque()
        self._open: dict[int, Slot] = {}
        self._failures: Counter[Slot] = Counter()

    @property
    def active(self) -> bool:
        return bool(self._slots)

    def begin(self) -> None:
        """Start the next round; if there are enough, write them to `seeds.save`."""
        slots = self._round(self._unread) or self._round(self._missing)
        self._results.clear()
        self._slots = slots
        self._todo.extend(slots)
        if not slots and self._settings.save and (seeds := self._book.seeds):
            seed_rows.write(Path(self._settings.save), seeds)

    def next_slot(self) -> Slot | None:
        return self._todo[0] if self._todo else None

    def granted(self, lease: int) -> None:
        self._open[lease] = self._todo.popleft()

    def deliver(self, group: Group) -> None:
        """Take a proposal in, the last one of a round beginning another; one that failed is made again."""
        slot = self._open.pop(group.lease, None)
        if slot is None:
            return
        if group.failure:
            self._failures[slot] += 1
            if self._failures[slot] < ATTEMPTS:
                self._todo.append(slot)
                return
            log.warning("seed %d of %s came to nothing: %s", slot.number, slot.task.type, group.failure)
        status = group.failure or group.samples[0].status
        if status == Status.OK and group.proposal is None:
            status = Status.FLAGGED
        self._results[slot] = Seed(group.lease, slot.task.type, status, group.proposal)
        if len(self._results) < len(self._slots):
            return
        self._failures.clear()
        most = 0 if self._slots[0].loaded else self._settings.tasks
        self._book.add_seeds([self._results[slot] for slot in self._slots], most)
        self.begin()

    def progress(self) -> dict[str, tuple[int, int]]:
        """Per type: rows done, and rows; once all are, tasks in the book, and tasks wanted."""
        counts = self._book.seed_counts()
        rows = {t: len(self._rows[t]) for t in self._types}
        if any(counts[t].total() < rows[t] for t in self._types):
            return {t.value: (min(counts[t].total(), rows[t]), rows[t]) for t in self._types}
        return {t.value: (self._book.added[t], self._settings.tasks) for t in self._types}

    def _round(self, wanted: Callable[[TaskType, Counter[str]], range]) -> list[Slot]:
        """What the first stage of which something is wanted asks for."""
        counts = self._book.seed_counts()
        for stage in _STAGES:
            numbers = [(t, n) for t in stage if t in self._types for n in wanted(t, counts[t])]
            if numbers:
                return [Slot(n, self._rows[t][n] if n < len(self._rows[t]) else blank(t)) for t, n in numbers]
        return []

    def _unread(self, task_type: TaskType, counts: Counter[str]) -> range:
        """Numbers of the rows of the next round."""
        done = counts.total()
        return range(done, min(len(self._rows[task_type]), done + ROUND))

    def _missing(self, task_type: TaskType, counts: Counter[str]) -> range:
        """Numbers of the proposals of the next round; none if the type has what it needs."""
        done, missing = counts.total(), self._settings.tasks - self._book.added[task_type]
        if missing <= 0:
            return range(0)
        most = self._settings.tries - (done - len(self._rows[task_type]))
        if most <= 0:
            raise PartFailed("seeding", self._shortage(task_type, counts), hint=self._remedy())
        return range(done, done + min(most, ROUND, 2 * missing + SPARE))

    def _shortage(self, task_type: TaskType, counts: Counter[str]) -> str:
        failed = ", ".join(f"{status} {n}" for status, n in counts.most_common() if status != Status.OK)
        rows = len(self._rows[task_type])
        loaded = f"{rows} rows and " if self._settings.load else ""
        return (
            f"only {self._book.added[task_type]} of seeds.tasks={self._settings.tasks} {task_type} tasks after "
            f"{loaded}{counts.total() - rows} proposals" + (f"; the others came to nothing: {failed}" if failed else "")
        )

    def _remedy(self) -> str:
        more = f"more valid rows in {self._settings.load}" if self._settings.load else "seeds.load with tasks of a file"
        return f"a lower seeds.tasks, a higher seeds.tries, another model.path, or {more}"
