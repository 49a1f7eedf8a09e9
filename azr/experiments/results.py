"""From the answers of all runs to figures: before, after, gain, curve; and the targets of the learning experiment.

Accuracies are shares, gains differences of shares (0.2 are 20 points). "mean" is the mean of the three task types.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from azr.experiments.answers import Answers, Bases, Point, differences
from azr.experiments.collapse import Trend
from azr.experiments.controls import AZR, SHUFFLED
from azr.experiments.intervals import Interval, bootstrap, mean
from common.types import TASK_TYPES, TaskType
from learner.evaluation import EvalSet

MEAN = "mean"
PLAIN = (EvalSet.STANDARD, EvalSet.HARDER)
FORCED = {EvalSet.STANDARD: EvalSet.FORCED, EvalSet.HARDER: EvalSet.HARDER_FORCED}
_NAMES: dict[str, list[TaskType]] = {**{t.value: [t] for t in TASK_TYPES}, MEAN: list(TASK_TYPES)}
OF_THREE = 1 - 0.05 / 3  # level of each interval where the best of three types is looked for (Bonferroni)


@dataclass(frozen=True, slots=True)
class Change:
    before: float
    after: float
    gain: Interval


@dataclass(frozen=True, slots=True)
class Curve:
    """Accuracy on the standard set by version: of each run, and their mean, where all runs were evaluated."""

    versions: tuple[int, ...]
    mean: tuple[float, ...]
    runs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class CellResult:
    """`changes[set][task type or mean]`, `curves[task type]`."""

    bases: int
    runs: int
    changes: dict[str, dict[str, Change]]
    curves: dict[str, Curve] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Target:
    """`met` is None where nothing was measured."""

    text: str
    met: bool | None
    found: str = ""

    def __str__(self) -> str:
        verdict = {True: "met", False: "missed", None: "not measured"}[self.met]
        return f"{verdict}: {self.text}{f' ({self.found})' if self.found else ''}"


def cell(bases: Bases, last: int) -> CellResult:
    """Of the finished runs of one cell, trained up to version `last`."""
    changes = {s.value: _changes(bases, Point(0, s), Point(last, s)) for s in PLAIN}
    return CellResult(len(bases), sum(map(len, bases)), _kept(changes), {t.value: _curve(bases, t) for t in TASK_TYPES})


def forced(bases: Bases) -> CellResult:
    """Of the base models alone: before is as they answer, after is with the thought begun."""
    changes = {s.value: _changes(bases, Point(0, s), Point(0, FORCED[s])) for s in PLAIN}
    return CellResult(len(bases), sum(map(len, bases)), _kept(changes))


def above_forced(bases: Bases, last: int) -> dict[str, dict[str, Change]]:
    """The trained models, freely, against their base models with the thought begun; intervals at OF_THREE."""
    return _kept({s.value: _changes(bases, Point(0, FORCED[s]), Point(last, s), OF_THREE) for s in PLAIN})


def against(
    control: Mapping[int, Mapping[int, Answers]], azr: Mapping[int, Mapping[int, Answers]], last: int
) -> dict[str, dict[str, Interval]]:
    """By set and task: by how much the control ends above Absolute Zero. Runs by base and RL seed; those of equal base
    and seed are paired, others left out."""
    pairs = [[(control[b][s], azr[b][s]) for s in control[b] if s in azr.get(b, {})] for b in control]
    ours, theirs = ([[pair[side] for pair in base] for base in pairs if base] for side in (1, 0))
    found: dict[str, dict[str, Interval]] = {}
    for eval_set in PLAIN:
        for name, types in _NAMES.items():
            sides = [differences(bases, types, Point(last, eval_set)) for bases in (theirs, ours)]
            measured = [[a - b for a, b in zip(x, y, strict=True)] for x, y in zip(*sides, strict=True)]
            if measured:
                found.setdefault(eval_set.value, {})[name] = bootstrap(measured)
    return found


def targets(
    cells: Mapping[str, CellResult], above: Mapping[str, Mapping[str, Change]], proposals: Sequence[Trend]
) -> list[Target]:
    """What the experiment is to show, judged by the means; where it says so, by intervals.

    `proposals`: how they went in all runs of Absolute Zero.
    """
    standard = cells[AZR].changes.get(EvalSet.STANDARD, {}) if AZR in cells else {}
    shuffled = cells[SHUFFLED].changes.get(EvalSet.STANDARD, {}) if SHUFFLED in cells else {}
    return [
        _gain("deduction gains at least 20 points", standard, [TaskType.DEDUCTION], 0.20),
        _gain("the mean of the three gains at least 15 points", standard, [MEAN], 0.15),
        _gain("none of the three goes down", standard, [*TASK_TYPES], 0.0),
        _above("above the base with forced thought on a task", above.get(EvalSet.STANDARD, {})),
        _above("above the base with forced thought on a task of the harder set", above.get(EvalSet.HARDER, {})),
        _end("induction ends at 0.20 or more", standard.get(TaskType.INDUCTION), 0.20),
        _silent("shuffled rewards teach nothing: a mean gain below 3 points", shuffled.get(MEAN), 0.03),
        _sound("valid, novel and learnable proposals do not collapse in any run", proposals),
    ]


def to_json(value: object) -> Any:
    """Dataclasses as objects, for json.dumps."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def points(interval: Interval) -> str:
    return f"{100 * interval.mean:+.1f} [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"


def _gain(text: str, changes: Mapping[str, Change], names: Sequence[str], least: float) -> Target:
    found = [(name, changes[name].gain) for name in names if name in changes]
    if len(found) < len(names):
        return Target(text, None)
    told = ", ".join(f"{name} {points(gain)}" for name, gain in found)
    return Target(text, all(gain.mean >= least for _, gain in found), told)


def _above(text: str, changes: Mapping[str, Change]) -> Target:
    """By the intervals of the single types."""
    found = [(name, change.gain) for name, change in changes.items() if name != MEAN]
    told = ", ".join(f"{name} {points(gain)}" for name, gain in found)
    return Target(text, any(gain.low > 0 for _, gain in found) if found else None, told)


def _end(text: str, change: Change | None, least: float) -> Target:
    return Target(text, None) if change is None else Target(text, change.after >= least, f"{change.after:.3f}")


def _silent(text: str, change: Change | None, below: float) -> Target:
    if change is None:
        return Target(text, None)
    return Target(text, change.gain.mean < below, points(change.gain))


def _sound(text: str, trends: Sequence[Trend]) -> Target:
    if not trends:
        return Target(text, None)
    collapsed = [str(trend) for trend in trends if trend.collapsed]
    return Target(text, not collapsed, ", ".join(collapsed) or f"{len(trends)} shares looked at")


def _changes(bases: Bases, before: Point, after: Point, level: float = 0.95) -> dict[str, Change]:
    found = {name: _change(bases, types, before, after, level) for name, types in _NAMES.items()}
    return {name: change for name, change in found.items() if change is not None}


def _change(bases: Bases, types: Sequence[TaskType], before: Point, after: Point, level: float) -> Change | None:
    gained = differences(bases, types, after, before)
    if not gained:
        return None
    began, ended = (mean(differences(bases, types, point)) for point in (before, after))
    return Change(began, ended, bootstrap(gained, level))


def _curve(bases: Bases, task_type: TaskType) -> Curve:
    runs = [run for base in bases for run in base]
    asked = [{p.version for p, t in run.right if t is task_type and p.set == EvalSet.STANDARD} for run in runs]
    versions = tuple(sorted(set.intersection(*asked)))
    shares = [differences([[run]], [task_type], Point(v, EvalSet.STANDARD)) for run in runs for v in versions]
    flat = [mean(share) for share in shares]
    rows = tuple(tuple(flat[i : i + len(versions)]) for i in range(0, len(flat), len(versions) or 1))
    means = (mean(differences(bases, [task_type], Point(v, EvalSet.STANDARD))) for v in versions)
    return Curve(versions, tuple(means), rows)


def _kept(changes: dict[str, dict[str, Change]]) -> dict[str, dict[str, Change]]:
    return {name: change for name, change in changes.items() if change}
