"""What `azr experiment peers` found, as results.json and as a table.

Medians over the rounds with the least and the greatest beside them: three rounds bear no interval. Rates of one round
were measured one after the other, so their ratio says more than rates of different rounds.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from azr.experiments.files import write_whole
from azr.experiments.rate import Rate


@dataclass(frozen=True)
class Trial:
    """A way to run a system that was tried, with the sequences it trained a second."""

    system: str
    way: str
    sequences_per_second: float


@dataclass(frozen=True)
class Round:
    ours: Rate
    trl: Rate

    @property
    def ratio(self) -> float:
        """Of trained sequences a second."""
        return self.ours.sequences_per_second / self.trl.sequences_per_second

    @property
    def tokens_ratio(self) -> float:
        return self.ours.tokens_per_second / self.trl.tokens_per_second


@dataclass(frozen=True)
class Found:
    """`ours` and `trl`: the ways that were measured, the fastest of `trials`. `failures`: trials and rounds."""

    ours: str
    trl: str
    rounds: tuple[Round, ...]
    trials: tuple[Trial, ...]
    failures: tuple[str, ...] = ()


def write(found: Found, out: Path) -> str:
    """Write results.json and table.md into `out`, each whole; the table."""
    table = "\n".join(_table(found)) + "\n"
    write_whole(out / "results.json", json.dumps(dataclasses.asdict(found), indent=1) + "\n")
    write_whole(out / "table.md", table)
    return table


def _table(found: Found) -> Iterator[str]:
    yield "| system | way | trained sequences/s | trained tokens/s | tokens of an answer |"
    yield "|---|---|---|---|---|"
    for system, way, rates in (
        ("azr", found.ours, [r.ours for r in found.rounds]),
        ("TRL", found.trl, [r.trl for r in found.rounds]),
    ):
        figures = [
            _spread([rate.sequences_per_second for rate in rates], "{:.0f}".format),
            _spread([rate.tokens_per_second for rate in rates], "{:.0f}".format),
            _spread([rate.tokens_per_sequence for rate in rates], "{:.1f}".format),
        ]
        yield f"| {system} | {way} | {' | '.join(figures)} |"
    ratio = _spread([r.ratio for r in found.rounds], "{:.2f}".format)
    tokens = _spread([r.tokens_ratio for r in found.rounds], "{:.2f}".format)
    yield f"| azr / TRL, by round | | {ratio} | {tokens} | |"
    yield ""
    yield "| tried | way | trained sequences/s |"
    yield "|---|---|---|"
    for trial in found.trials:
        yield f"| {trial.system} | {trial.way} | {trial.sequences_per_second:.0f} |"
    if found.failures:
        yield ""
        yield "Failed, and in no figure:"
        yield ""
        yield from (f"- {failure}" for failure in found.failures)


def _spread(values: Sequence[float], write: Callable[[float], str]) -> str:
    """Median [least, greatest]."""
    if not values:
        return "none"
    return f"{write(median(values))} [{write(min(values))}, {write(max(values))}]"
