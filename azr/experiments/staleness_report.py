"""What the staleness experiment leaves: runs.csv, results.json, table.md, staleness.svg, curves.svg, staleness.html.

Each file is written whole (temporary name, rename); the page holds everything and refers to nothing outside.
"""

from __future__ import annotations

import csv
import html
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from azr.experiments import collapse, plot
from azr.experiments.answers import Answers
from azr.experiments.cells import Outcome
from azr.experiments.files import write_whole
from azr.experiments.intervals import Interval
from azr.experiments.plot import COLOURS, Line, Panel
from azr.experiments.results import points
from azr.experiments.staleness_figures import OFF_POLICY, Result, RunFigures, Setting, results
from common.config import Config
from common.types import TASK_TYPES

HEAD = ("loss", "η", "KV policy", "runs", *(t.value for t in TASK_TYPES), "mean", "95 %", "against η = 0, points")
NOTES = """\
Held-out answers at the evaluation's temperature after the last step, and the mean of the three types with its interval:
bootstrap over RL seeds and tasks (one base), percentiles, too narrow with few seeds. *Against η = 0*: the same loss,
seeds and tasks. Staleness, mean |log ratio| of trained to behaviour policy, the largest ratio and the effective sample
size are means over the last third of the steps."""


@dataclass(frozen=True)
class Report:
    """`config` of the first cell; what it says of staleness, loss and seed differs between them."""

    config: Config
    runs: Sequence[RunFigures]
    failed: Sequence[Outcome]
    results: Sequence[Result]
    seconds: float  # that the finished runs trained and evaluated

    @property
    def last(self) -> int:
        return self.config.learner.steps


def make(outcomes: Sequence[tuple[Setting, Outcome]], config: Config) -> Report:
    finished = [(setting, outcome) for setting, outcome in outcomes if not outcome.failure]
    runs = [
        RunFigures(setting, o.cell.seed, Answers.read(o.folder), collapse.steps(o.folder)) for setting, o in finished
    ]
    summaries = [json.loads((o.folder / "summary.json").read_text()) for _, o in finished]
    failed = [outcome for _, outcome in outcomes if outcome.failure]
    found = results(runs, config.learner.steps)
    return Report(config, runs, failed, found, sum(summary["seconds"] for summary in summaries))


def write(report: Report, folder: Path) -> str:
    """Returns what to tell: the table, and which files there are."""
    table = markdown(report)
    files = {
        "runs.csv": _csv(report),
        "results.json": json.dumps([asdict(result) for result in report.results], indent=1) + "\n",
        "table.md": table,
        "staleness.svg": by_eta(report.results),
        "curves.svg": curves(report.results, report.last),
        "staleness.html": page(report),
    }
    for name, text in files.items():
        write_whole(folder / name, text)
    return f"{table}\nwritten to {folder}: {', '.join(files)}"


def markdown(report: Report) -> str:
    head = (*HEAD, *(name.replace("_", " ") for name in OFF_POLICY))
    rows = [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *_rows(report.results))]
    failed = [f"- {outcome.cell}: {outcome.failure}" for outcome in report.failed]
    return "\n".join(
        [
            f"# Staleness: {report.last} steps, {report.config.staleness.mode} mode",
            "",
            *rows,
            "",
            NOTES,
            f"The {len(report.runs)} runs took {report.seconds / 60:.0f} minutes without their starts.",
            "",
            f"Runs that failed, and are in no figure: {'' if failed else 'none'}".rstrip(),
            *failed,
            "",
        ]
    )


def _rows(found: Sequence[Result]) -> Iterator[list[str]]:
    for result in found:
        setting, after = result.setting, result.after
        yield [
            setting.loss,
            str(setting.eta),
            setting.kv or "as configured",
            str(result.runs),
            *(f"{share:.3f}" for share in result.types.values()),
            f"{after.mean:.3f}",
            f"{after.low:.3f} … {after.high:.3f}",
            points(result.against_zero) if result.against_zero else "",
            *(f"{result.off_policy[name]:.3g}" if name in result.off_policy else "" for name in OFF_POLICY),
        ]


def _csv(report: Report) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    types = [t.value for t in TASK_TYPES]
    writer.writerow(["loss", "eta", "kv", "seed", "version", "mean", *types, *OFF_POLICY])
    for run in report.runs:
        for version in run.versions:
            shares = [run.accuracy(version), *(run.accuracy(version, [t]) for t in TASK_TYPES)]
            last = run.off_policy if version == report.last else {}
            figures = [f"{last[name]:.6g}" if name in last else "" for name in OFF_POLICY]
            writer.writerow([*run.setting, run.seed, version, *(f"{share:.4f}" for share in shares), *figures])
    return out.getvalue()


def by_eta(found: Sequence[Result]) -> str:
    """Accuracy with intervals, |log ratio| and effective sample size over η, a line per loss."""
    etas = sorted({result.setting.eta for result in found})
    place = {eta: float(number) for number, eta in enumerate(etas)}
    lines: dict[str, list[Result]] = {}
    for result in found:
        lines.setdefault(result.setting.line, []).append(result)
    accuracy, ratios, sizes = list[Line](), list[Line](), list[Line]()
    for number, (name, of) in enumerate(lines.items()):
        colour, shift = COLOURS[number % len(COLOURS)], 0.03 * number
        accuracy += [_whisker(place[r.setting.eta] + shift, r.after, colour) for r in of]
        accuracy.append(Line([(place[r.setting.eta] + shift, r.after.mean) for r in of], colour, name=name))
        for panel, figure in ((ratios, "log_ratio"), (sizes, "effective_sample_size")):
            shown = [(place[r.setting.eta], r.off_policy[figure]) for r in of if figure in r.off_policy]
            panel.append(Line(shown, colour, name=name))
    top = max((y for line in ratios for _, y in line.points), default=1.0)
    panels = [
        Panel("held-out accuracy", accuracy),
        Panel("mean |log ratio|, nats", ratios, top or 1.0),
        Panel("effective sample size", sizes),
    ]
    marks = [(place[eta], str(eta)) for eta in etas]
    return plot.svg(panels, max(len(etas) - 1, 1) + 0.1, "η", marks)


def _whisker(x: float, interval: Interval, colour: str) -> Line:
    return Line([(x, interval.low), (x, interval.high)], colour, 1.2)


def curves(found: Sequence[Result], last: int) -> str:
    """Accuracy by version, a panel per η."""
    names = list(dict.fromkeys(result.setting.line for result in found))
    panels = [
        Panel(
            f"η = {eta}",
            [
                Line(r.curve, COLOURS[names.index(r.setting.line) % len(COLOURS)], name=r.setting.line)
                for r in found
                if r.setting.eta == eta
            ],
        )
        for eta in sorted({result.setting.eta for result in found})
    ]
    return plot.svg(panels, last, "version")


def page(report: Report) -> str:
    """One HTML page: table, both drawings, settings."""
    head = (*HEAD, *(name.replace("_", " ") for name in OFF_POLICY))
    cells = "\n".join(_tags("td", row) for row in _rows(report.results))
    failed = "".join(f"<li>{html.escape(f'{outcome.cell}: {outcome.failure}')}</li>" for outcome in report.failed)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Staleness</title>
<style>body {{font: 14px sans-serif; margin: 2em; max-width: 80em}} table {{border-collapse: collapse}}
td, th {{border: 1px solid #ccc; padding: .3em .6em; text-align: right}} svg {{max-width: 100%; height: auto}}</style>
</head><body>
<h1>Staleness: {report.last} steps, {report.config.staleness.mode} mode</h1>
<table>
{_tags("th", head)}
{cells}
</table>
<p>{html.escape(NOTES)}</p>
{by_eta(report.results)}
{curves(report.results, report.last)}
<p>Runs that failed, and are in no figure: {f"<ul>{failed}</ul>" if failed else "none"}</p>
</body></html>
"""


def _tags(tag: str, row: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"
