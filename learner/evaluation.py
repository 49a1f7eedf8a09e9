"""Evaluation inside the run: leases of kind `eval` over held-out tasks, at chosen versions, with pushes held.

A round asks every question once: the standard tasks, the harder ones, and, where asked for, in the round of version 0
each of them again with the thought begun, which shows what the base model could do if it only thought. While a round is
open no push goes out, so every answer of a round was sampled by one version. The groups are scored like any other and
never trained.
"""

from __future__ import annotations

import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from common.config import EvalConfig
from common.errors import ConfigError
from common.types import TASK_TYPES, Group, Task, TaskType
from learner.task_book import task_from_json

log = logging.getLogger(__name__)

STANDARD_FILE, HARDER_FILE = "heldout.jsonl", "heldout_harder.jsonl"
BEGUN = "<think>"
ATTEMPTS = 3  # failed groups of one question in a round, after which it counts as not solved


class EvalSet(StrEnum):
    """What is counted apart; the values are the names in metrics."""

    STANDARD = "standard"
    HARDER = "harder"
    FORCED = "forced"
    HARDER_FORCED = "harder/forced"

    @property
    def begun(self) -> str:
        """With what text the answer to a question of this set is begun."""
        return BEGUN if self in (EvalSet.FORCED, EvalSet.HARDER_FORCED) else ""


@dataclass(frozen=True, slots=True)
class Question:
    task: Task
    set: EvalSet = EvalSet.STANDARD


@dataclass(frozen=True, slots=True)
class Round:
    """Which questions `version` answered rightly."""

    version: int
    right: Mapping[Question, bool]

    @property
    def sets(self) -> tuple[EvalSet, ...]:
        """Those that were asked."""
        return tuple(s for s in EvalSet if any(question.set is s for question in self.right))

    def asked(self, eval_set: EvalSet, task_type: TaskType) -> int:
        return len(self._answers(eval_set, task_type))

    def accuracy(self, eval_set: EvalSet, task_type: TaskType) -> float:
        """Share of right answers; 0 where nothing was asked."""
        answers = self._answers(eval_set, task_type)
        return sum(answers) / len(answers) if answers else 0.0

    def accuracies(self, eval_set: EvalSet = EvalSet.STANDARD) -> dict[str, float]:
        return {t.value: self.accuracy(eval_set, t) for t in TASK_TYPES}

    def _answers(self, eval_set: EvalSet, task_type: TaskType) -> list[bool]:
        return [right for q, right in self.right.items() if q.set is eval_set and q.task.type is task_type]


class Evaluation:
    """Rounds at version 0, every `every` versions, and at the last one."""

    def __init__(self, questions: Sequence[Question], config: EvalConfig, last_version: int) -> None:
        self._questions = questions
        self._config = config
        self._last = last_version
        self._todo: deque[Question] = deque()
        self._open: dict[int, Question] = {}
        self._right: dict[Question, bool] = {}
        self._failures: Counter[Question] = Counter()
        self._version = -1
        self._over: int | None = None  # version of the last round that is over
        self.rounds: list[Round] = []

    def rejoin(self, over: int | None) -> None:
        """Go on behind the round of version `over`, which a process that has died saw the end of."""
        self._over = over

    def due(self, version: int) -> bool:
        if not self._questions or version == self._over or self.active:
            return False
        every = self._config.every
        return version in (0, self._last) or (every > 0 and version % every == 0)

    def begin(self, version: int) -> None:
        self._version = version
        asked = [question for question in self._questions if version == 0 or not question.set.begun]
        self._right = dict.fromkeys(asked, False)
        self._todo.extend(self._right)
        self._failures.clear()

    @property
    def active(self) -> bool:
        return bool(self._todo or self._open)

    def next_question(self) -> Question | None:
        return self._todo[0] if self._todo else None

    def granted(self, lease: int) -> None:
        self._open[lease] = self._todo.popleft()

    def deliver(self, group: Group) -> Round | None:
        """Count the answer; a group that failed puts its question back. The result of the round if this ends it."""
        question = self._open.pop(group.lease, None)
        if question is None:
            return None
        if group.failure:
            self._failures[question] += 1
            if self._failures[question] < ATTEMPTS:
                self._todo.append(question)
                return None
            task = question.task
            log.warning("%s task %s (%s) counts as not solved: %s", task.type, task.key, question.set, group.failure)
        self._right[question] = any(sample.correct for sample in group.samples)
        if self.active:
            return None
        self._over = self._version
        self.rounds.append(Round(self._version, self._right))
        return self.rounds[-1]


def questions(model: Path, config: EvalConfig) -> list[Question]:
    """What the first round asks of a model that came with held-out tasks. ConfigError if there are too few."""
    standard = held_out(model, config.tasks)
    harder = held_out(model, config.harder, HARDER_FILE, "harder")
    asked = [Question(task) for task in standard] + [Question(task, EvalSet.HARDER) for task in harder]
    if config.forced:
        asked += [Question(task, EvalSet.FORCED) for task in standard]
        asked += [Question(task, EvalSet.HARDER_FORCED) for task in harder]
    return asked


def held_out(model: Path, per_type: int, file: str = STANDARD_FILE, key: str = "tasks") -> list[Task]:
    """The first `per_type` tasks of each type in a file of the model folder. ConfigError if there are too few.

    `key`: the setting of `eval` that asks for them.
    """
    if per_type == 0:
        return []
    path = model / file
    if not path.exists():
        raise ConfigError(
            f"{path} is missing: set eval.{key}=0 or provide held-out tasks (a JSON object of common.types.Task a line)"
        )
    rows = [task_from_json(line) for line in path.read_text().splitlines() if line]
    found = [task for t in TASK_TYPES for task in [row for row in rows if row.type is t][:per_type]]
    if len(found) < per_type * len(TASK_TYPES):
        raise ConfigError(f"{path} holds {len(rows)} tasks, too few for eval.{key}={per_type} of each type")
    return found


def held_out_programs(model: Path) -> frozenset[str]:
    """Keys of the programs in all held-out files of the model folder, whichever of them are evaluated.

    A row without a program key is logged: its program cannot be told from others.
    """
    keys: set[str] = set()
    for path in sorted(model.glob("heldout*.jsonl")):
        found = {task_from_json(line).program_key for line in path.read_text().splitlines() if line}
        if "" in found:
            log.warning("%s has rows without program_key: proposals of their programs are not rejected", path)
        keys |= found - {""}
    return frozenset(keys)
