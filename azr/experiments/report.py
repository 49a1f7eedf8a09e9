"""What an experiment found, and what it leaves: results.json, table.md, learning.svg, proposals.svg.

Each file is written whole (temporary name, rename), and names files as seen from the experiment's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from azr.experiments import charts, collapse, results, table
from azr.experiments.answers import Answers
from azr.experiments.cells import Outcome
from azr.experiments.collapse import Trend
from azr.experiments.controls import AZR
from azr.experiments.files import write_whole
from azr.experiments.intervals import Interval
from azr.experiments.results import CellResult, Change, Target
from learner.evaluation import EvalSet


@dataclass(frozen=True)
class Report:
    """All that the finished runs of an experiment say. `last`: the version they were trained to.

    `cells` over all their bases; `bases`, Absolute Zero on each base alone; `against`, by control, what it ends above
    Absolute Zero on the same base; `trained`, sequences and tokens of a run, means by cell.
    """

    outcomes: Sequence[Outcome]
    last: int
    cells: dict[str, CellResult] = field(default_factory=dict)
    bases: dict[str, CellResult] = field(default_factory=dict)
    forced: CellResult | None = None
    above_forced: dict[str, dict[str, Change]] = field(default_factory=dict)
    against: dict[str, dict[str, dict[str, Interval]]] = field(default_factory=dict)
    trained: dict[str, tuple[float, float]] = field(default_factory=dict)
    proposals: list[Sequence[Mapping[str, float]]] = field(default_factory=list)  # collapse.steps of AZR's runs
    trends: dict[str, list[Trend]] = field(default_factory=dict)  # by run
    targets: list[Target] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure]

    @property
    def azr(self) -> list[str]:
        """The finished runs of Absolute Zero itself."""
        return [o.cell.run for o in self.outcomes if o.cell.name == AZR and not o.failure]

    @property
    def all_cells(self) -> dict[str, CellResult]:
        untrained = {"forced": self.forced} if self.forced and self.forced.changes else {}
        return self.cells | self.bases | untrained


def make(outcomes: Sequence[Outcome], last: int) -> Report:
    finished = [outcome for outcome in outcomes if not outcome.failure]
    answers: dict[str, dict[int, dict[int, Answers]]] = {}  # by cell, base and RL seed
    steps: dict[str, list[list[Mapping[str, float]]]] = {}  # by cell
    trends: dict[str, list[Trend]] = {}
    for outcome in finished:
        cell, rows = outcome.cell, collapse.steps(outcome.folder)
        answers.setdefault(cell.name, {}).setdefault(cell.base, {})[cell.seed] = Answers.read(outcome.folder)
        steps.setdefault(cell.name, []).append(rows)
        trends[cell.run] = collapse.trends(rows)
    runs = {name: [list(by_seed.values()) for by_seed in by_base.values()] for name, by_base in answers.items()}
    cells = {name: results.cell(bases, last) for name, bases in runs.items()}
    azr = answers.get(AZR, {})
    above = results.above_forced(runs.get(AZR, []), last)
    against = {name: results.against(by_base, azr, last) for name, by_base in answers.items() if name != AZR}
    ours = [trend for outcome in finished if outcome.cell.name == AZR for trend in trends[outcome.cell.run]]
    return Report(
        outcomes,
        last,
        cells,
        {f"{AZR}, base {seed}": results.cell([list(azr[seed].values())], last) for seed in azr if len(azr) > 1},
        results.forced(next(iter(runs.values()))) if runs else None,
        above,
        against,
        {name: (_sum(found, "sequences"), _sum(found, "tokens")) for name, found in steps.items()},
        list(steps.get(AZR, [])),
        trends,
        results.targets(cells, above, ours),
    )


def _sum(runs: Sequence[Sequence[Mapping[str, float]]], name: str) -> float:
    """Of the steps of a run; the mean over runs."""
    return fmean(sum(row.get(name, 0.0) for row in rows) for rows in runs)


def write(report: Report, folder: Path) -> None:
    write_whole(folder / "results.json", json.dumps(_json(report, folder), indent=1, default=results.to_json) + "\n")
    write_whole(folder / "table.md", table.markdown(report))
    standard = report.forced.changes.get(EvalSet.STANDARD, {}) if report.forced else {}
    forced = {name: change.after for name, change in standard.items()}
    write_whole(folder / "learning.svg", charts.accuracy(report.cells, report.bases, forced, report.last))
    write_whole(folder / "proposals.svg", charts.proposals(report.proposals, report.last))


def _json(report: Report, folder: Path) -> Mapping[str, object]:
    return {
        "last_version": report.last,
        "runs": [
            {
                "cell": o.cell.name,
                "base": o.cell.base,
                "seed": o.cell.seed,
                "settings": [_inside(setting, folder) for setting in o.cell.settings],
                "folder": _inside(str(o.folder), folder),
                "failure": _inside(o.failure, folder),
                "trends": report.trends.get(o.cell.run, []),
            }
            for o in report.outcomes
        ],
        "cells": report.all_cells,
        "above_forced": report.above_forced,
        "against": report.against,
        "trained": report.trained,
        "targets": report.targets,
    }


def _inside(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "")
