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
KEPT = {"valid": 0.5, "novel": 0.5, "learnable": 0.2}  # what is left of each share in a sound run
COPIES = (Status.KNOWN, Status.COPY)


@dataclass(frozen=True, slots=True)
class Trend:
    """A share (of KEPT) over the first and the last quarter of the steps."""

    name: str
    type: TaskType
    first: float
    last: float

    @property
    def collapsed(self) -> bool:
        return self.first >= LEAST and self.last < KEPT[self.name] * self.first

    def __str__(self) -> str:
        return f"{self.name} of {self.type} proposals: {self.first:.2f} → {self.last:.2f}"


def steps(run: Path) -> list[Mapping[str, float]]:
    """The rows of the learner's steps in metrics.jsonl of a run folder, in order; of a step trained again the last.

    PartFailed if they cannot be read.
    """
    path = run / "metrics.jsonl"
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found = {int(row["step"]): row for row in rows if "groups" in row}
    except (OSError, ValueError) as error:
        raise PartFailed("experiment", f"cannot read {path}: {error}", hint=f"remove {run}") from error
    return [found[step] for step in sorted(found)]


def trends(rows: Sequence[Mapping[str, float]]) -> list[Trend]:
    """Of the rows of `steps`; empty for fewer than four."""
    quarter = len(rows) // 4
    found = []
    for task_type in TASK_TYPES if quarter else ():
        for name in KEPT:
            first, last = (mean_share(part, task_type, name) for part in (rows[:quarter], rows[-quarter:]))
            if first is not None and last is not None:
                found.append(Trend(name, task_type, first, last))
    return found


def mean_share(rows: Sequence[Mapping[str, float]], task_type: TaskType, name: str) -> float | None:
    """valid: legal programs among the proposals, copies included; novel: what is no copy among the legal ones;
    learnable: tasks that some answers solved and some did not, among the accepted ones. Learnability falls when the
    solver gets better, so little of it has to be left. None where no step has such a figure.
    """
    shares = [share for row in rows if (share := _share(row, propose(task_type), name)) is not None]
    return float(np.mean(shares)) if shares else None


def _share(row: Mapping[str, float], stream: str, name: str) -> float | None:
    """None where nothing was proposed, or nothing legal."""
    accepted = row.get(f"{stream}/valid")
    if accepted is None:
        return None
    if name == "learnable":
        return row.get(f"{stream}/learnable")
    legal = accepted + sum(row.get(f"{stream}/rejected/{status}", 0.0) for status in COPIES)
    if name == "valid":
        return legal
    return accepted / legal if legal else None
