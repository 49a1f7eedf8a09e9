"""The task book: every valid task ever proposed, as one append-only sequence of events in SQLite (WAL).

Written by the intake alone. It grows at version boundaries only, in lease order; the pools that leases draw from are
folds of the events up to a version, so the book can be rebuilt as of any version (`rewind`). Every `add` is on disk
when it returns, and with it what others wrote to the same file before: the journal drops a batch that is in the book.
"""

from __future__ import annotations

import dataclasses
import json
import random
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from common.types import Group, Task, TaskType

_SCHEMA = """
CREATE TABLE IF NOT EXISTS events (
    seq INTEGER PRIMARY KEY, version INTEGER NOT NULL, event TEXT NOT NULL, key TEXT NOT NULL,
    lease INTEGER, type TEXT NOT NULL, solve_rate REAL, task TEXT);
CREATE INDEX IF NOT EXISTS events_by_version ON events(version);
"""


class TaskBook:
    """Pools of tasks by type, and the record they are folded from."""

    def __init__(self, path: Path, seeds: Iterable[Task]) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.executescript(_SCHEMA)
        self._pools: dict[TaskType, list[Task]] = {kind: [] for kind in TaskType}
        self._keys: set[str] = set()
        for (text,) in self._db.execute("SELECT task FROM events WHERE event = 'added' ORDER BY seq"):
            self._admit(task_from_json(text))
        if not self._keys:
            self.add(0, [(None, task, None) for task in seeds])

    def add(self, version: int, found: Sequence[tuple[int | None, Task, float | None]]) -> int:
        """Append (lease, task, solve rate) at `version`; a key the book knows is only measured. The number new."""
        rows, new = [], 0
        for lease, task, rate in found:
            fresh = task.key not in self._keys
            text = task_to_json(task) if fresh else None
            rows.append((version, "added" if fresh else "measured", task.key, lease, task.type, rate, text))
            if fresh:
                self._admit(task)
                new += 1
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT INTO events (version, event, key, lease, type, solve_rate, task) VALUES (?,?,?,?,?,?,?)",
            rows,
        )
        self._db.execute("COMMIT")
        return new

    def add_batch(self, version: int, batch: Iterable[Group]) -> int:
        """The valid proposals of a trained batch, in lease order."""
        return self.add(version, [(g.lease, g.proposal, g.solve_rate) for g in batch if g.proposal is not None])

    def rewind(self, version: int) -> None:
        """Forget what was added after `version`: the book as the weights of that version knew it."""
        self._db.execute("DELETE FROM events WHERE version > ?", (version,))
        self._keys.clear()
        for pool in self._pools.values():
            pool.clear()
        for (text,) in self._db.execute("SELECT task FROM events WHERE event = 'added' ORDER BY seq"):
            self._admit(task_from_json(text))

    def knows(self, keys: Iterable[str]) -> tuple[bool, ...]:
        return tuple(key in self._keys for key in keys)

    def references(self, rng: random.Random, task_type: TaskType, count: int) -> tuple[Task, ...]:
        """At most `count` tasks to show a proposer, drawn without replacement.

        Induction proposers are given a program to write inputs for; it may come from either pair type.
        """
        if task_type is TaskType.INDUCTION:
            pool = self._pools[TaskType.DEDUCTION] + self._pools[TaskType.ABDUCTION]
            count = 1
        else:
            pool = self._pools[task_type]
        return tuple(rng.sample(pool, min(count, len(pool))))

    def task(self, rng: random.Random, task_type: TaskType) -> Task:
        return rng.choice(self._pools[task_type])

    @property
    def sizes(self) -> dict[TaskType, int]:
        return {kind: len(pool) for kind, pool in self._pools.items()}

    def close(self) -> None:
        self._db.close()

    def _admit(self, task: Task) -> None:
        self._keys.add(task.key)
        self._pools[task.type].append(task)


def task_to_json(task: Task) -> str:
    return json.dumps(dataclasses.asdict(task))


def task_from_json(text: str) -> Task:
    row = json.loads(text)
    row["type"] = TaskType(row["type"])
    row["inputs"], row["outputs"] = tuple(row["inputs"]), tuple(row["outputs"])
    return Task(**row)
