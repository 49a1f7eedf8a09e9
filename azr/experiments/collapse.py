"""Whether a run's proposals fell into one of the known holes: invalid, all the same, or teaching nothing.

The last quarter of its steps is compared with the first, per task type. The bounds are generous: they are for runs
that broke, not for runs that could be better. A share that was low from the start cannot be said to have collapsed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from common.errors import PartFailed
from common.types import TASK_TYPES, Status, TaskType, propose

LEAST = 0.05  # of the first quarter, below which nothing can be said
COPIES = (Status.KNOWN, Status.COPY)


@dataclass(frozen=True, slots=True)
class Trend:
    """A share over the first and the last quarter of the steps. `kept`: what is left of it in a sound run."""

    name: str
    type: TaskType
    first: float
    last: float
    kept: float

    @property
    def collapsed(self) -> bool:
        return self.first >= LEAST and self.last < self.kept * self.first

    def __str__(self) -> str:
        return f"{self.name} of {self.type} proposals: {self.first:.2f} → {self.last:.2f}"


def trends(run: Path) -> list[Trend]:
    """Of a run folder, from its metrics.jsonl. PartFailed if it cannot be read; empty for fewer than four steps."""
    path = run / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        steps = {int(row["step"]): row for row in rows if "groups" in row}  # a step trained again: its last row
    except (OSError, ValueError) as error:
        raise PartFailed("experiment", f"cannot read {path}: {error}", hint=f"remove {run}") from error
    return of_steps([steps[step] for step in sorted(steps)])


def of_steps(rows: Sequence[Mapping[str, float]]) -> list[Trend]:
    """`rows`: those of the learner's steps, in order (learner.run_log.batch_metrics).

    valid: legal programs among the proposals, copies included; novel: what is no copy among the legal ones;
    learnable: tasks that some answers solved and some did not, among the accepted ones. Learnability falls when the
    solver gets better, so little of it has to be left.
    """
    quarter = len(rows) // 4
    found = []
    for task_type in TASK_TYPES if quarter else ():
        stream = propose(task_type)
        for name, kept in (("valid", 0.5), ("novel", 0.5), ("learnable", 0.2)):
            shares = [
                [s for row in part if (s := _share(row, stream, name)) is not None] for part in _ends(rows, quarter)
            ]
            if all(shares):
                found.append(Trend(name, task_type, float(np.mean(shares[0])), float(np.mean(shares[1])), kept))
    return found


def _ends(rows: Sequence[Mapping[str, float]], size: int) -> tuple[Sequence[Mapping[str, float]], ...]:
    return rows[:size], rows[-size:]


def _share(row: Mapping[str, float], stream: str, name: str) -> float | None:
    """None where the step has no such figure: nothing was proposed, or nothing legal."""
    accepted = row.get(f"{stream}/valid")
    if accepted is None:
        return None
    if name == "learnable":
        return row.get(f"{stream}/learnable")
    legal = accepted + sum(row.get(f"{stream}/rejected/{status}", 0.0) for status in COPIES)
    if name == "valid":
        return legal
    return accepted / legal if legal else None
