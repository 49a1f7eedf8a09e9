"""The report of the learning experiment as Markdown for people."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from azr.experiments import results
from azr.experiments.controls import AZR
from azr.experiments.results import points

if TYPE_CHECKING:
    from azr.experiments.report import Report

_NOTES = f"""\
Held-out answers at the evaluation's temperature. Intervals: bootstrap over base seeds, RL seeds and tasks, percentiles.
They are too narrow where few were drawn from: over two bases they may hold the truth in three cases of four, and with \
one base or one run per base they say nothing about others. Controls have the first base only, so their like is `azr` \
on that base. `forced`: the untrained base, freely and with `<think>` begun; comparisons with it (above) are at \
{results.OF_THREE:.1%} per task, for the best of three is looked for."""


def markdown(report: Report) -> str:
    lines = [f"# Learning in {report.last} steps of self-play", "", *(f"- {target}" for target in report.targets), ""]
    lines += _head("cell", "bases", "runs", "set", "task", "before", "after", "gain in points, 95 %")
    for name, cell in report.all_cells.items():
        for eval_set, changes in cell.changes.items():
            lines += [
                f"| {name} | {cell.bases} | {cell.runs} | {eval_set} | {task} | {change.before:.3f} | "
                f"{change.after:.3f} | {points(change.gain)} |"
                for task, change in changes.items()
            ]
    lines += ["", _NOTES, ""]
    if any(report.against.values()):
        lines += [f"Where the controls end, against `{AZR}` from the same base with the same RL seeds:", ""]
        lines += _head("control", "set", "task", "points above, 95 %")
        for name, by_set in report.against.items():
            for eval_set, found in by_set.items():
                lines += [f"| {name} | {eval_set} | {task} | {points(above)} |" for task, above in found.items()]
        lines.append("")
    lines += [*_head("cell", "trained sequences of a run", "sampled tokens")]
    lines += [f"| {name} | {rows:,.0f} | {tokens:,.0f} |" for name, (rows, tokens) in report.trained.items()]
    lines += ["", *_proposals(report)]
    lines += _list("Runs that failed, and are in no figure", [f"{o.cell}: {o.failure}" for o in report.failed])
    return "\n".join(lines) + "\n"


def _proposals(report: Report) -> list[str]:
    """How they went in the runs of Absolute Zero; what collapsed in any run."""
    runs = [report.trends[run] for run in report.azr]
    lines = _head("proposals of", "share", "first quarter of the steps", "last quarter", "lowest of a run")
    for kind in runs[0] if runs else ():
        same = [trend for run in runs for trend in run if (trend.type, trend.name) == (kind.type, kind.name)]
        first, last = fmean(trend.first for trend in same), fmean(trend.last for trend in same)
        lowest = min(trend.last for trend in same)
        lines.append(f"| {kind.type} | {kind.name} | {first:.3f} | {last:.3f} | {lowest:.3f} |")
    collapsed = [f"{run}: {t}" for run, found in report.trends.items() for t in found if t.collapsed]
    return [*lines, "", *_list("Proposals that collapsed", collapsed)]


def _head(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]


def _list(title: str, entries: Sequence[str]) -> list[str]:
    return [f"{title}: {'none' if not entries else ''}".rstrip(), "", *(f"- {entry}" for entry in entries), ""]
