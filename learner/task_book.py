"""The task book: every valid task ever proposed, as one append-only sequence of events in SQLite (WAL).

Written by the intake alone. It grows at version boundaries only, in lease order; the pools that leases draw from are
folds of the events up to a version, so the book can be rebuilt as of any version (`rewind`). Every `add` is on disk
when it returns, and with it what others wrote to the same file before: the journal drops a batch that is in the book.

Version 0 is what a run starts from: the tasks it was given and the seeds its model proposed, a round of them at a
time; for a seed that came to nothing there is an event that says why. Those figures are never forgotten.

Known is what ever entered, also if a limited pool has let go of it.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.config import Config
from common.types import Group, Status, Task, TaskType
from learner import intrinsic
from learner.pools import Entry, Pool, components, references

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, version INTEGER NOT NULL, event TEXT NOT NULL, key TEXT NOT NULL,
    lease INTEGER, type TEXT NOT NULL, solve_rate REAL, task TEXT);
CREATE INDEX IF NOT EXISTS events_by_version ON events(version);
CREATE INDEX IF NOT EXISTS events_by_key ON events(key);
"""
_INSERT = "INSERT INTO events (version, event, key, lease, type, solve_rate, task) VALUES (?,?,?,?,?,?,?)"
_ADDED = "SELECT version, task FROM events WHERE event = 'added' ORDER BY seq"
_FIND = "SELECT task FROM events WHERE key = ? AND event = 'added'"
_SEEDED = "version = 0 AND lease IS NOT NULL"
_Row = tuple[int, str, str, int | None, str, float | None, str | None]

SURPLUS = "surplus"  # a valid seed that came when its type had enough


@dataclasses.dataclass(frozen=True, slots=True)
class Seed:
    """What a seed lease came to: a task if `status` is "ok"."""

    lease: int
    type: TaskType
    status: str
    task: Task | None


class TaskBook:
    """Pools of tasks by type, and the record they are folded from.

    `given`: what a new book holds from the start. `held_out`: keys of programs that evaluation keeps for itself.
    """

    def __init__(
        self, path: Path, given: Iterable[Task], config: Config, held_out: frozenset[str] = frozenset()
    ) -> None:
        self._config, self._held_out = config, held_out
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._fold()
        if not self._keys:
            self.add(0, [(None, task, None) for task in given])

    # -- growth --------------------------------------------------------------------------------------------------

    def add(self, version: int, found: Sequence[tuple[int | None, Task, float | None]]) -> int:
        """Append (lease, task, solve rate) at `version`; the number of new tasks.

        A key the book knows is only measured, and a task that `algorithm.admit` keeps out is only recorded.
        """
        rows: list[_Row] = []
        for lease, task, rate in found:
            fresh = task.key not in self._keys
            event = "measured" if not fresh else "added" if self.admits(rate) else "refused"
            rows.append((version, event, task.key, lease, task.type, rate, task_to_json(task) if fresh else None))
            if event == "added":
                self._enter(version, task)
        self._write(rows)
        return sum(row[1] == "added" for row in rows)

    def add_batch(self, version: int, batch: Iterable[Group]) -> int:
        """The valid proposals of a trained batch, in lease order."""
        return self.add(version, [(g.lease, g.proposal, g.solve_rate) for g in batch if g.proposal is not None])

    def add_seeds(self, found: Sequence[Seed], most: int) -> None:
        """A round of seeds in its order, at version 0; a type takes no more than `most` tasks (0: all that come)."""
        rows: list[_Row] = []
        for seed in found:
            status, task = seed.status, seed.task
            if task is not None:
                status = self.status(task.type, task.key, task.program_key)
                if status == Status.OK and task.key in self._keys:
                    status = Status.KNOWN
                if status == Status.OK and most and self.added[task.type] >= most:
                    status = SURPLUS
            if task is not None and status == Status.OK:
                rows.append((0, "added", task.key, seed.lease, seed.type, None, task_to_json(task)))
                self._enter(0, task)
            else:
                rows.append((0, f"seed/{status}", "", seed.lease, seed.type, None, None))
        self._write(rows)

    def rewind(self, version: int) -> None:
        """Forget what was added after `version`: the book as the weights of that version knew it."""
        self._db.execute("DELETE FROM events WHERE version > ?", (version,))
        self._fold()

    # -- what is new ---------------------------------------------------------------------------------------------

    def name(self, task_type: TaskType, key: str, program_key: str) -> str:
        """What proposals are compared by: equal names make copies.

        Under `novelty: program` that is the program, up to formatting, for deduction and abduction. An induction
        proposal is given its program, so program and inputs count, as for all types under `novelty: task`. A task
        without program key, as the one a run starts from, has its own key for a name.
        """
        by_program = self._config.environment.novelty == "program" and task_type is not TaskType.INDUCTION
        return f"{task_type} program {program_key}" if by_program and program_key else key

    def status(self, task_type: TaskType, key: str, program_key: str) -> str:
        """ok, known or heldout: what the book says to a proposal."""
        if program_key in self._held_out:
            return Status.HELD_OUT
        known = self._config.environment.novelty != "off" and self.name(task_type, key, program_key) in self._names
        return Status.KNOWN if known else Status.OK

    def admits(self, solve_rate: float | None) -> bool:
        """Whether a valid task with this solve rate enters; what was never measured does."""
        match self._config.algorithm.admit:
            case "unsolved":
                return solve_rate is None or solve_rate < 1.0
            case "learnable":
                return solve_rate is None or 0.0 < solve_rate < 1.0
        return True

    def entering(self, batches: Iterable[Iterable[Group]]) -> dict[str, Task]:
        """What batches on their way into the book will add to it, by key, in the order in which they come."""
        found: dict[str, Task] = {}
        for group in (group for batch in batches for group in batch):
            task = group.proposal
            if task is not None and task.key not in self._keys and self.admits(group.solve_rate):
                found.setdefault(task.key, task)
        return found

    def find(self, key: str) -> Task | None:
        """The task that entered under `key`, also if a limited pool has let go of it."""
        row = self._db.execute(_FIND, (key,)).fetchone()
        return task_from_json(row[0]) if row is not None else None

    def entered(self, key: str) -> int | None:
        """The version with which the task of this key came."""
        return self._keys.get(key)

    @property
    def seen(self) -> Mapping[TaskType, intrinsic.Seen]:
        """Counts of everything that ever entered; empty unless an intrinsic term of diversity is on."""
        return self._seen

    # -- drawing -------------------------------------------------------------------------------------------------

    def references(self, rng: random.Random, task_type: TaskType, count: int) -> tuple[Task, ...]:
        """At most `count` tasks to show a proposer, drawn without replacement.

        Induction proposers are given a program to write inputs for; it may come from either pair type. What the book
        was given, the identity, is left out as soon as there is another.
        """
        if task_type is TaskType.INDUCTION:
            entries = self._pairs()
            entries = [entry for entry in entries if entry.task.program_key] or entries
            count = 1
        else:
            entries = list(self._pools[task_type].entries)
        return references(rng, entries, count, self._config.algorithm.reference_sampling)

    def components(self, rng: random.Random, count: int) -> tuple[Task, ...]:
        """At most `count` tasks of the pair types whose programs a composite is to call."""
        return components(rng, self._pairs(), count)

    def task(self, rng: random.Random, task_type: TaskType, version: int) -> Task:
        """A task for a solver, at the version in force."""
        return self._pools[task_type].task(rng, self._config.algorithm, version)

    @property
    def sizes(self) -> dict[TaskType, int]:
        """Tasks that can be drawn, of each type of this run."""
        return {kind: len(self._pools[kind].entries) for kind in self._config.algorithm.task_types}

    @property
    def added(self) -> dict[TaskType, int]:
        """Tasks that ever entered, of each type of this run."""
        return {kind: self._pools[kind].added for kind in self._config.algorithm.task_types}

    @property
    def seeds(self) -> list[Task]:
        """The seeds that were proposed or loaded, in the order in which they entered."""
        rows = self._db.execute(f"SELECT task FROM events WHERE event = 'added' AND {_SEEDED} ORDER BY seq")
        return [task_from_json(text) for (text,) in rows]

    def seed_counts(self) -> dict[TaskType, Counter[str]]:
        """Per type of this run, what became of its seed leases: by status."""
        counts: dict[TaskType, Counter[str]] = {kind: Counter() for kind in self._config.algorithm.task_types}
        rows = self._db.execute(f"SELECT type, event, count(*) FROM events WHERE {_SEEDED} GROUP BY type, event")
        for kind, event, count in rows:
            counts[TaskType(kind)][Status.OK.value if event == "added" else event.removeprefix("seed/")] += count
        return counts

    def close(self) -> None:
        self._db.close()

    def _fold(self) -> None:
        limit, seed = self._config.algorithm.book_limit, self._config.run.seed
        self._pools = {kind: Pool(limit, seed) for kind in TaskType}
        self._keys: dict[str, int] = {}  # with what version each came
        self._names: set[str] = set()
        self._seen = intrinsic.fold(())
        for version, text in self._db.execute(_ADDED):
            self._enter(version, task_from_json(text))

    def _enter(self, version: int, task: Task) -> None:
        self._keys[task.key] = version
        self._names.add(self.name(task.type, task.key, task.program_key))
        self._pools[task.type].add(version, task)
        if intrinsic.counts(self._config.intrinsic):
            self._seen[task.type].add(task)

    def _pairs(self) -> list[Entry]:
        return [*self._pools[TaskType.DEDUCTION].entries, *self._pools[TaskType.ABDUCTION].entries]

    def _write(self, rows: Sequence[_Row]) -> None:
        self._db.execute("BEGIN")
        self._db.executemany(_INSERT, rows)
        self._db.execute("COMMIT")


def task_to_json(task: Task) -> str:
    return json.dumps(dataclasses.asdict(task))


def task_from_json(text: str) -> Task:
    row = json.loads(text)
    row["type"] = TaskType(row["type"])
    row["inputs"], row["outputs"] = tuple(row["inputs"]), tuple(row["outputs"])
    return Task(**row)
