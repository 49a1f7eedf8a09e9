"""What the learning experiment draws: held-out accuracy by version, and what became of the proposals.

A panel per task type. Thick lines are means over runs, thin ones single runs of Absolute Zero.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from azr.experiments import collapse, plot
from azr.experiments.plot import COLOURS, GREY, Line, Panel
from azr.experiments.results import CellResult
from common.types import TASK_TYPES, TaskType

THIN = 0.6
_POINTS = 16  # of a line of the second chart, each the mean of as many steps


def accuracy(
    cells: Mapping[str, CellResult], bases: Mapping[str, CellResult], forced: Mapping[str, float], last: int
) -> str:
    """Single runs are those of the first cell, and `bases` what it is on each base alone: of these the first is drawn,
    dashed, for the others have only that base. `forced`: accuracy of the base with the thought begun, per task type;
    `last`: the last version."""
    panels = [Panel(f"held-out {t}", list(_accuracies(t, cells, bases, forced.get(t), last))) for t in TASK_TYPES]
    return plot.svg(panels, last, "version")


def _accuracies(
    task_type: TaskType,
    cells: Mapping[str, CellResult],
    bases: Mapping[str, CellResult],
    forced: float | None,
    last: int,
) -> Iterator[Line]:
    for name, result in [*bases.items()][:1]:
        if (curve := result.curves.get(task_type)) is not None:
            points = list(zip(curve.versions, curve.mean, strict=True))
            yield Line(points, COLOURS[0], 1.5, dashed=True, name=name)
    if forced is not None:
        yield Line([(0, forced), (last, forced)], GREY, 1.5, dashed=True, name="thought forced")
    for number, (name, result) in reversed(list(enumerate(cells.items()))):
        curve = result.curves.get(task_type)
        if curve is None:
            continue
        for run in curve.runs if number == 0 else ():
            yield Line(list(zip(curve.versions, run, strict=True)), COLOURS[0], THIN)
        points = list(zip(curve.versions, curve.mean, strict=True))
        yield Line(points, COLOURS[number % len(COLOURS)], name=name)


def proposals(runs: Sequence[Sequence[Mapping[str, float]]], last: int) -> str:
    """`runs`: the rows of the steps of each (`collapse.steps`); `last`: their number."""
    panels = [Panel(f"proposals of {t}", list(_shares(t, runs, last))) for t in TASK_TYPES]
    return plot.svg(panels, last, "step")


def _shares(task_type: TaskType, runs: Sequence[Sequence[Mapping[str, float]]], last: int) -> Iterator[Line]:
    size = max(1, last // _POINTS)
    for colour, name in reversed(list(zip(COLOURS, collapse.KEPT, strict=False))):
        by_run = [_points(rows, task_type, name, size) for rows in runs]
        for points in by_run:
            yield Line(sorted(points.items()), colour, THIN)
        places = sorted(set[float]().union(*by_run))
        means = [(x, float(np.mean([points[x] for points in by_run if x in points]))) for x in places]
        yield Line(means, colour, name=name)


def _points(rows: Sequence[Mapping[str, float]], task_type: TaskType, name: str, size: int) -> dict[float, float]:
    """Means over `size` steps, at their middle; nothing where the run has no such figure."""
    points: dict[float, float] = {}
    for begin in range(0, len(rows), size):
        found = collapse.mean_share(rows[begin : begin + size], task_type, name)
        if found is not None:
            points[begin + size / 2] = found
    return points
