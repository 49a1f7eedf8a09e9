"""What a lease contains.

Lease ids say their kind (`id % 10`), and the material is drawn by a generator seeded with (run seed, lease id) from a
book that grows at version boundaries only: given the version in force at its grant, what a lease contains does not
depend on timing.
"""

from __future__ import annotations

import random

from common.config import Config
from common.seeds import derive
from common.types import Kind, Lease, Task, TaskType
from learner.task_book import TaskBook

_KINDS = tuple(Kind)
_COMPOSING = (Kind.PROPOSE_DEDUCTION, Kind.PROPOSE_ABDUCTION)


def lease_id(kind: Kind, sequence: int) -> int:
    return sequence * len(_KINDS) + _KINDS.index(kind)


def kind_of(lease: int) -> Kind:
    return _KINDS[lease % len(_KINDS)]


def sequence_of(lease: int) -> int:
    return lease // len(_KINDS)


class LeaseMaker:
    """Draws references and tasks from the book; leases of kinds `eval` and `seed` carry what they are given."""

    def __init__(self, config: Config, book: TaskBook) -> None:
        self._config = config
        self._book = book

    def make(self, lease: int, version: int) -> Lease:
        kind, seed = kind_of(lease), derive(self._config.run.seed, lease)
        rng = random.Random(derive(seed, "material"))
        algorithm = self._config.algorithm
        if kind.proposes:
            references = self._book.references(rng, kind.task_type, self._config.environment.references)
            components = self._components(kind, version, seed)
            return Lease(lease, 0, kind, version, seed, algorithm.samples, references=references, components=components)
        task = self._book.task(rng, kind.task_type, version)
        return Lease(lease, 0, kind, version, seed, algorithm.solve_samples, task=task)

    def evaluation(self, lease: int, version: int, task: Task, temperature: float, begun: str = "") -> Lease:
        """Seeded by the task alone, so that evaluations before and after draw the same random numbers."""
        seed = derive(self._config.run.seed, "eval", task.type, task.key)
        return Lease(lease, 0, Kind.EVAL, version, seed, 1, task=task, temperature=temperature, begun=begun)

    def seed(self, lease: int, task: Task, number: int) -> Lease:
        """Proposal `number` of its type, by which it is seeded: one that is made again is made of the same.

        `task` is to be validated; one without inputs stands for its type, of which a task is to be proposed.
        """
        seed = derive(self._config.run.seed, "seed", task.type, number)
        references: tuple[Task, ...] = ()
        if not task.inputs:
            rng = random.Random(derive(seed, "material"))
            references = self._book.references(rng, task.type, self._config.environment.references)
        return Lease(lease, 0, Kind.SEED, 0, seed, 0, references=references, task=task)

    def _components(self, kind: Kind, version: int, seed: int) -> tuple[Task, ...]:
        """What a proposal of deduction or abduction has to call: nothing, or as many as the schedule lets it draw.

        A generator of their own draws them, so that all else is as in a run without.
        """
        schedule = self._config.composite
        rng = random.Random(derive(seed, "components"))
        if kind not in _COMPOSING or rng.random() >= schedule.chance_at(version):
            return ()
        found = self._book.components(rng, rng.randint(schedule.least, schedule.most_at(version)))
        return found if len(found) >= schedule.least else ()


def blank(task_type: TaskType) -> Task:
    """The type alone: what a seed lease carries that is to propose a task of it."""
    return Task(task_type, "", (), (), "")
