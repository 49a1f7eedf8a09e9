"""Evaluation inside the run: leases of kind `eval` over held-out tasks, at chosen versions, with pushes held.

While a round is open no push goes out, so every answer of a round was sampled by one version. The groups are scored
like any other and never trained.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config import EvalConfig
from common.errors import ConfigError
from common.types import Group, Task, TaskType
from learner.task_book import task_from_json

log = logging.getLogger(__name__)

ATTEMPTS = 3  # failed groups of one task in a round, after which it counts as not solved


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of right answers per task type at `version`, and how many were asked of each."""

    version: int
    correct: dict[TaskType, int]
    asked: dict[TaskType, int]

    def of(self, task_type: TaskType) -> float:
        return self.correct[task_type] / self.asked[task_type] if self.asked[task_type] else 0.0


class Evaluation:
    """Rounds at version 0, every `every` versions, and at the last one."""

    def __init__(self, tasks: Sequence[Task], config: EvalConfig, last_version: int) -> None:
        self._tasks = tasks
        self._config = config
        self._last = last_version
        self._todo: deque[Task] = deque()
        self._open: dict[int, Task] = {}
        self._right: dict[TaskType, int] = {}
        self._failures: Counter[Task] = Counter()
        self._version = -1
        self.rounds: list[Accuracy] = []

    def due(self, version: int) -> bool:
        if not self._tasks or any(r.version == version for r in self.rounds) or self.active:
            return False
        every = self._config.every
        return version in (0, self._last) or (every > 0 and version % every == 0)

    def begin(self, version: int) -> None:
        self._version = version
        self._todo.extend(self._tasks)
        self._right = dict.fromkeys(TaskType, 0)
        self._failures.clear()

    @property
    def active(self) -> bool:
        return bool(self._todo or self._open)

    def next_task(self) -> Task | None:
        return self._todo[0] if self._todo else None

    def granted(self, lease: int) -> None:
        self._open[lease] = self._todo.popleft()

    def deliver(self, group: Group) -> Accuracy | None:
        """Count the answer; a group that failed puts its task back. The result of the round if this ends it."""
        task = self._open.pop(group.lease, None)
        if task is None:
            return None
        if group.failure:
            self._failures[task] += 1
            if self._failures[task] < ATTEMPTS:
                self._todo.append(task)
                return None
            log.warning("%s task %s counts as not solved: %s", task.type, task.key, group.failure)
        self._right[task.type] += sum(sample.correct for sample in group.samples)
        if self.active:
            return None
        asked = {t: sum(task.type is t for task in self._tasks) for t in TaskType}
        self.rounds.append(Accuracy(self._version, self._right, asked))
        return self.rounds[-1]


def held_out(model: Path, per_type: int) -> list[Task]:
    """The first `per_type` held-out tasks of each type that came with the model. ConfigError if there are too few."""
    if per_type == 0:
        return []
    path = model / "heldout.jsonl"
    if not path.exists():
        raise ConfigError(
            f"{path} is missing: set eval.tasks=0 or provide held-out tasks (a JSON object of common.types.Task a line)"
        )
    rows = [task_from_json(line) for line in path.read_text().splitlines() if line]
    found = [task for t in TaskType for task in [row for row in rows if row.type is t][:per_type]]
    if len(found) < per_type * len(TaskType):
        raise ConfigError(f"{path} holds {len(rows)} tasks, too few for eval.tasks={per_type} of each type")
    return found
