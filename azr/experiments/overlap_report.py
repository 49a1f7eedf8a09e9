"""What the overlap experiment leaves: results.json, runs.csv (a row per run), table.md, overlap.svg.

Medians over pairs, with the lowest and the highest in brackets.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median

from azr.experiments import pairs as compared
from azr.experiments import plot, results
from azr.experiments.files import write_whole
from azr.experiments.pace import Pace
from azr.experiments.pairs import BOTH, CELLS, LOCKSTEP, OVERLAP, Pair, Spread, spread
from azr.experiments.plot import COLOURS, GREY, Line, Panel
from common.config import Config

SHOWN = 0.005  # of a step; what takes less is left out of the table
_RUN = ("steps", "seconds", "sequences", "rate", "step", "generating", "training", "gained")
_PAIR = ("bound", "balance", "speedup", "reached", "over_both")


def write(runs: Mapping[int, Mapping[str, Pace]], failures: Sequence[str], config: Config, folder: Path) -> str:
    """All files, of `runs` by seed and cell; returns the text of table.md."""
    pairs = compared.whole(runs)
    told = markdown(pairs, failures, config)
    rows = [(seed, name, pace) for seed, by_cell in sorted(runs.items()) for name, pace in by_cell.items()]
    write_whole(
        folder / "results.json", json.dumps(_json(pairs, rows, failures), indent=1, default=results.to_json) + "\n"
    )
    write_whole(folder / "runs.csv", _csv(rows))
    write_whole(folder / "table.md", told)
    if pairs:
        write_whole(folder / "overlap.svg", picture(pairs))
    return told


def markdown(pairs: Sequence[Pair], failures: Sequence[str], config: Config) -> str:
    lines = [f"# Overlap at η = {config.staleness.eta}", "", *(f"- {t}" for t in compared.targets(pairs)), ""]
    if pairs:
        lines += ["| run | sequences/s | step, s | G, s | T, s |", "|---|---|---|---|---|"]
        lines += [_row(name, pairs) for name in CELLS]
        lines += ["", f"Over {len(pairs)} pairs: median (lowest to highest).", "", "| ratio | |", "|---|---|"]
        lines += [f"| {text} | {spread(pairs, figure).told(3)} |" for text, figure in _RATIOS]
        lines += ["", "What the learner's step waited for (critical path), median seconds per step:", ""]
        lines += _table(pairs, lambda pace: pace.path)
        lines += ["", "What the actor did, median seconds per step:", ""]
        lines += _table(pairs, lambda pace: pace.states.get("actor-0", {}))
    lines += ["", f"Runs that failed: {'; '.join(failures) or 'none'}"]
    return "\n".join(lines) + "\n"


_RATIOS: tuple[tuple[str, Callable[[Pair], float]], ...] = (
    ("bound, (G + T) / max(G, T)", lambda pair: pair.bound),
    ("overlap over lock-step", lambda pair: pair.speedup),
    ("of the bound", lambda pair: pair.reached),
    ("overlap over lock-step with all cores open", lambda pair: pair.over_both),
)


def _of(pair: Pair, name: str) -> Pace:
    return {LOCKSTEP: pair.lockstep, OVERLAP: pair.overlap, BOTH: pair.both}[name]


def _row(name: str, pairs: Sequence[Pair]) -> str:
    paces = [_of(pair, name) for pair in pairs]
    phases = [[pace.generating for pace in paces], [pace.training for pace in paces]]
    lengths = ["" if name == OVERLAP else Spread.of(seconds).told(2) for seconds in phases]
    rate, step = Spread.of([pace.rate for pace in paces]), Spread.of([pace.step for pace in paces])
    return f"| {' | '.join([name, rate.told(1), step.told(2), *lengths])} |"


def _table(pairs: Sequence[Pair], seconds: Callable[[Pace], dict[str, float]]) -> Iterator[str]:
    yield f"| state | {' | '.join(CELLS)} |"
    yield "|---" * (len(CELLS) + 1) + "|"
    states = {state: None for pair in pairs for name in CELLS for state in seconds(_of(pair, name))}
    rows = {state: [median(seconds(_of(p, name)).get(state, 0.0) for p in pairs) for name in CELLS] for state in states}
    least = SHOWN * min(pair.overlap.step for pair in pairs)
    for state, row in sorted(rows.items(), key=lambda item: -max(item[1])):
        if max(row) >= least:
            yield f"| {state} | {' | '.join(f'{value:.3f}' for value in row)} |"


def picture(pairs: Sequence[Pair]) -> str:
    """Sequences a second of each run, with the bound of its pair; and how many times those of lock-step."""
    lines = {
        "bound": [_bar(n, pair.bound * pair.lockstep.rate) for n, pair in enumerate(pairs)],
        **{name: [_bar(n, _of(pair, name).rate) for n, pair in enumerate(pairs)] for name in CELLS[::-1]},
    }
    top = max(pair.lockstep.rate for pair in pairs)
    rates = [line for name, bars in lines.items() for line in _lines(name, bars)]
    times = [
        line
        for name, bars in lines.items()
        for line in _lines(
            name, [[(x, y / pair.lockstep.rate) for x, y in bar] for bar, pair in zip(bars, pairs, strict=True)]
        )
    ]
    panels = [Panel("trained sequences a second", rates, 2.2 * top), Panel("times lock-step", times, 2.2)]
    marks = [(n + 0.5, f"seed {pair.seed}") for n, pair in enumerate(pairs)]
    return plot.svg(panels, len(pairs), "", marks)


def _bar(number: int, height: float) -> list[tuple[float, float]]:
    return [(number + 0.15, height), (number + 0.85, height)]


def _lines(name: str, bars: Sequence[plot.Points]) -> list[Line]:
    colour = GREY if name == "bound" else COLOURS[CELLS.index(name)]
    return [Line(bar, colour, dashed=name == "bound", name=name) for bar in bars]


def _csv(runs: Sequence[tuple[int, str, Pace]]) -> str:
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(("seed", "cell", *_RUN))
    rows.writerows([seed, name, *(getattr(pace, figure) for figure in _RUN)] for seed, name, pace in runs)
    return text.getvalue()


def _json(pairs: Sequence[Pair], runs: Sequence[tuple[int, str, Pace]], failures: Sequence[str]) -> dict[str, object]:
    return {
        "targets": compared.targets(pairs),
        "pairs": [{"seed": pair.seed, **{name: getattr(pair, name) for name in _PAIR}} for pair in pairs],
        "runs": [
            {"seed": seed, "cell": name, "rate": pace.rate, "step": pace.step, **dataclasses.asdict(pace)}
            for seed, name, pace in runs
        ],
        "failures": list(failures),
    }
