"""What an experiment leaves: results.json, table.md, learning.svg, proposals.svg.

Each is written whole (temporary name, rename), and names files as seen from the experiment's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from azr.experiments import charts, collapse, results
from azr.experiments.answers import Answers
from azr.experiments.cells import Outcome
from azr.experiments.collapse import Trend
from azr.experiments.controls import AZR
from azr.experiments.results import CellResult, Change, Target, points
from learner.evaluation import EvalSet

FORCED = "forced"


@dataclass(frozen=True)
class Report:
    """All that the finished runs of an experiment say. `last`: the version they were trained to."""

    outcomes: Sequence[Outcome]
    last: int
    cells: dict[str, CellResult] = field(default_factory=dict)
    forced: CellResult | None = None
    above_forced: dict[str, dict[str, Change]] = field(default_factory=dict)
    steps: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)  # by run, see collapse.steps
    trends: dict[str, list[Trend]] = field(default_factory=dict)  # by run
    targets: list[Target] = field(default_factory=list)

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.failure]

    @property
    def azr(self) -> list[str]:
        """The finished runs of Absolute Zero itself."""
        return _azr(self.outcomes)


def _azr(outcomes: Sequence[Outcome]) -> list[str]:
    return [outcome.cell.run for outcome in outcomes if outcome.cell.name == AZR and not outcome.failure]


def make(outcomes: Sequence[Outcome], last: int) -> Report:
    answers: dict[str, dict[int, list[Answers]]] = {}
    for outcome in outcomes:
        if not outcome.failure:
            cell = outcome.cell
            answers.setdefault(cell.name, {}).setdefault(cell.base, []).append(Answers.read(outcome.folder))
    bases = {name: list(by_base.values()) for name, by_base in answers.items()}
    cells = {name: results.cell(runs, last) for name, runs in bases.items()}
    azr = bases.get(AZR, [])
    above = results.above_forced(azr, last)
    steps = {outcome.cell.run: collapse.steps(outcome.folder) for outcome in outcomes if not outcome.failure}
    trends = {run: collapse.trends(rows) for run, rows in steps.items()}
    return Report(
        outcomes,
        last,
        cells,
        results.forced(next(iter(bases.values()))) if bases else None,
        above,
        steps,
        trends,
        results.targets(cells.get(AZR), above, [trend for run in _azr(outcomes) for trend in trends[run]]),
    )


def write(report: Report, folder: Path) -> None:
    _write(folder / "results.json", json.dumps(_json(report, folder), indent=1, default=results.to_json) + "\n")
    _write(folder / "table.md", table(report))
    standard = report.forced.changes.get(EvalSet.STANDARD, {}) if report.forced else {}
    forced = {name: change.after for name, change in standard.items()}
    _write(folder / "learning.svg", charts.accuracy(report.cells, forced, report.last))
    _write(folder / "proposals.svg", charts.proposals([report.steps[run] for run in report.azr], report.last))


def table(report: Report) -> str:
    """Markdown for people."""
    lines = [f"# Learning in {report.last} steps of self-play", "", *(f"- {target}" for target in report.targets), ""]
    lines += ["| cell | bases | runs | set | task | before | after | gain in points, 95 % |", "|" + "---|" * 8]
    for name, result in _all_cells(report).items():
        for eval_set, changes in result.changes.items():
            lines += [
                f"| {name} | {result.bases} | {result.runs} | {eval_set} | {task} | {change.before:.3f} | "
                f"{change.after:.3f} | {points(change.gain)} |"
                for task, change in changes.items()
            ]
    lines += [
        "",
        "Held-out answers at the evaluation's temperature. Intervals: bootstrap over base seeds, RL seeds and tasks; "
        "with one base or one run per base they say nothing about others. Row `forced`: the untrained base, freely and "
        f"with `<think>` begun; comparisons with it (above) are at {results.OF_THREE:.1%} per task, for the best of "
        "three is looked for.",
        "",
    ]
    lines += _proposals(report)
    lines += _list("Runs that failed, and are in no figure", [f"{o.cell}: {o.failure}" for o in report.failed])
    return "\n".join(lines) + "\n"


def _proposals(report: Report) -> list[str]:
    runs = [report.trends[run] for run in report.azr]
    lines = ["| proposals of | share | first quarter of the steps | last quarter | lowest of a run |", "|" + "---|" * 5]
    for kind in runs[0] if runs else ():
        same = [trend for run in runs for trend in run if (trend.type, trend.name) == (kind.type, kind.name)]
        first, last = fmean(trend.first for trend in same), fmean(trend.last for trend in same)
        lines.append(
            f"| {kind.type} | {kind.name} | {first:.3f} | {last:.3f} | {min(trend.last for trend in same):.3f} |"
        )
    collapsed = [f"{run}: {t}" for run, found in report.trends.items() for t in found if t.collapsed]
    return [*lines, "", *_list("Proposals that collapsed", collapsed)]


def _all_cells(report: Report) -> dict[str, CellResult]:
    return report.cells | ({FORCED: report.forced} if report.forced and report.forced.changes else {})


def _list(title: str, entries: Sequence[str]) -> list[str]:
    return [f"{title}: {'none' if not entries else ''}".rstrip(), "", *(f"- {entry}" for entry in entries), ""]


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
        "cells": _all_cells(report),
        "above_forced": report.above_forced,
        "targets": report.targets,
    }


def _inside(text: str, folder: Path) -> str:
    return text.replace(f"{folder}/", "")


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)
