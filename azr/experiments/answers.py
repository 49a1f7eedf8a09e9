"""What a run answered: its evaluation.jsonl, and the answers of several runs as arrays.

A file may hold an answer twice (a resumed run evaluates a version again): the last one counts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from azr.experiments.intervals import FloatArray
from common.errors import PartFailed
from common.types import TaskType


class Point(NamedTuple):
    """A round's questions of one set (learner.evaluation.EvalSet)."""

    version: int
    set: str


@dataclass(frozen=True)
class Answers:
    """`right[point, type][task key]` of one run."""

    right: dict[tuple[Point, TaskType], dict[str, bool]]

    @classmethod
    def read(cls, run: Path) -> Self:
        """Of a run folder; without any answer if it has none. Raises PartFailed naming a file that cannot be read."""
        path = run / "evaluation.jsonl"
        right: dict[tuple[Point, TaskType], dict[str, bool]] = {}
        try:
            for line in path.read_text().splitlines() if path.exists() else []:
                row = json.loads(line)
                where = (Point(row["version"], row["set"]), TaskType(row["type"]))
                right.setdefault(where, {})[row["key"]] = bool(row["right"])
        except (ValueError, KeyError, TypeError) as error:
            raise PartFailed("experiment", f"cannot read {path}: {error!r}", hint=f"remove {run}") from error
        return cls(right)

    def points(self) -> set[Point]:
        return {point for point, _ in self.right}


Bases = Sequence[Sequence[Answers]]  # [base][run]


def differences(
    bases: Bases, types: Sequence[TaskType], after: Point, before: Point | None = None
) -> list[list[FloatArray]]:
    """Right answers at `after`, minus those at `before` if given, task by task: [base][type] → [runs, tasks].

    Only tasks that all runs of a base were asked at these points; a type without any is left out, and so is a base
    that is left with nothing.
    """
    found = [[_differences(runs, task_type, after, before) for task_type in types] for runs in bases]
    kept = [[values for values in base if values.size] for base in found]
    return [base for base in kept if base]


def _differences(runs: Sequence[Answers], task_type: TaskType, after: Point, before: Point | None) -> FloatArray:
    points = [after] if before is None else [after, before]
    answered = [[run.right.get((point, task_type), {}) for point in points] for run in runs]
    keys = sorted(set.intersection(*(set(right) for rights in answered for right in rights)))
    rows = [
        [float(rights[0][key]) - sum(float(right[key]) for right in rights[1:]) for key in keys] for rights in answered
    ]
    return np.array(rows, dtype=np.float64).reshape(len(runs), len(keys))
