"""The figures of the staleness experiment: per setting held-out accuracy, ratios and effective sample size.

Accuracies are shares of right answers, means over the three task types unless told by type. Figures of off-policy
training are means over the last third of the steps of a run, when η has long had its effect, and then over runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import NamedTuple

from azr.experiments.answers import Answers, Point, differences
from azr.experiments.intervals import Interval, bootstrap, mean
from common.types import TASK_TYPES, TaskType
from learner.evaluation import EvalSet

OFF_POLICY = {  # name here → in metrics.jsonl
    "staleness": "staleness/mean",
    "log_ratio": "learner/log_ratio_mean",
    "ratio_max": "learner/ratio_max",
    "effective_sample_size": "learner/effective_sample_size",
}


class Setting(NamedTuple):
    """`kv` is empty where only one policy was run."""

    loss: str
    eta: int
    kv: str = ""

    @property
    def line(self) -> str:
        """What differs from it by η alone is drawn as one line."""
        return f"{self.loss}, {self.kv}" if self.kv else self.loss


@dataclass(frozen=True)
class RunFigures:
    """One finished run. `steps`: the rows of its learner steps."""

    setting: Setting
    seed: int
    answers: Answers
    steps: Sequence[Mapping[str, float]]

    def accuracy(self, version: int, types: Sequence[TaskType] = TASK_TYPES) -> float:
        return mean(differences([[self.answers]], types, Point(version, EvalSet.STANDARD)))

    @property
    def off_policy(self) -> dict[str, float]:
        """Figures of OFF_POLICY that its steps have."""
        late = self.steps[-max(1, len(self.steps) // 3) :]
        found = {name: [row[key] for row in late if key in row] for name, key in OFF_POLICY.items()}
        return {name: fmean(values) for name, values in found.items() if values}

    @property
    def versions(self) -> list[int]:
        """That were evaluated."""
        return sorted({point.version for point in self.answers.points() if point.set == EvalSet.STANDARD})


@dataclass(frozen=True)
class Result:
    """Of all finished runs of a setting. `against_zero`: accuracy less that with η = 0 and the same loss, by task and
    RL seed; None for η = 0. `curve`: (version, accuracy) where all runs were evaluated."""

    setting: Setting
    runs: int
    before: float
    after: Interval
    types: Mapping[str, float]
    against_zero: Interval | None
    off_policy: Mapping[str, float]
    curve: Sequence[tuple[int, float]] = field(default_factory=list)


def results(runs: Sequence[RunFigures], last: int) -> list[Result]:
    """In the order in which settings first occur. `last`: the version they were trained to."""
    by_setting: dict[Setting, list[RunFigures]] = {}
    for run in runs:
        by_setting.setdefault(run.setting, []).append(run)
    return [
        _result(setting, of, by_setting.get(setting._replace(eta=0), []), last) for setting, of in by_setting.items()
    ]


def _result(setting: Setting, runs: Sequence[RunFigures], zero: Sequence[RunFigures], last: int) -> Result:
    end = Point(last, EvalSet.STANDARD)
    measured = differences([[run.answers for run in runs]], TASK_TYPES, end)
    figures = [run.off_policy for run in runs]
    versions = sorted(set.intersection(*(set(run.versions) for run in runs)))
    return Result(
        setting,
        len(runs),
        fmean(run.accuracy(0) for run in runs),
        bootstrap(measured),
        {t.value: fmean(run.accuracy(last, [t]) for run in runs) for t in TASK_TYPES},
        _against(runs, zero, end) if setting.eta else None,
        {name: fmean(f[name] for f in figures) for name in OFF_POLICY if all(name in f for f in figures)},
        [(version, fmean(run.accuracy(version) for run in runs)) for version in versions],
    )


def _against(runs: Sequence[RunFigures], zero: Sequence[RunFigures], end: Point) -> Interval | None:
    """By RL seed and task; None without a pair."""
    partner = {run.seed: run for run in zero}
    paired = [run for run in runs if run.seed in partner]
    if not paired:
        return None
    sides = [
        differences([[run.answers for run in side]], TASK_TYPES, end)[0]
        for side in (paired, [partner[run.seed] for run in paired])
    ]
    return bootstrap([[ours - theirs for ours, theirs in zip(*sides, strict=True)]])
