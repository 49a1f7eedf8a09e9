"""What `azr bench` found: as a table for people, as JSON with every repeat, as bars.

What could not be measured is named with its reason everywhere; a part that failed in a later repeat keeps the repeats
before.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azr.bench import bars, run
from azr.bench.bars import Panel
from azr.bench.figures import Figure, Reading, collect, table
from azr.experiments.files import write_whole

TARGETS = {  # of a GPU
    ("loop", "of the engine alone"): ">= 0.95",
    ("learner", "MFU"): ">= 40 to 50",
    ("learner", "padding"): "<= 3",
    ("push", "ipc, into an idle engine: pause"): "<= 100",
}
NO_GPU, UNTOLD = "no GPU", "not told"  # instead of what NVML says: its library (nvidia-ml-py) may be missing
FILES = ("bench.json", "bench.txt", "bench.svg")


@dataclass(slots=True)
class Result:
    """`setting` and `config` as JSON; `failed`: why a part could not be measured."""

    setting: Mapping[str, object]
    config: Mapping[str, Any]
    command: Sequence[str]
    rounds: list[list[Reading]] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def figures(self) -> list[Figure]:
        readings = [reading for of_round in self.rounds for reading in _with_ratio(of_round)]
        return collect(readings, TARGETS if self.setting["gpus"] else {})

    def text(self) -> str:
        figures = self.figures
        parts = [table(figures) if figures else "", use(figures, UNTOLD if self.setting["gpus"] else NO_GPU)]
        if self.failed:
            parts.append("\n".join(["not measured", *(f"  {part}: {why}" for part, why in self.failed.items())]))
        return "\n\n".join(filter(None, parts))

    def write(self, out: Path) -> None:
        """FILES, each whole."""
        figures = self.figures
        found = {
            "command": list(self.command),
            "setting": self.setting,
            "config": self.config,
            "failed": self.failed,
            "figures": [dataclasses.asdict(figure) | {"median": figure.median} for figure in figures],
        }
        for name, text in zip(
            FILES, (json.dumps(found, indent=1), self.text(), bars.svg(panels(figures))), strict=True
        ):
            write_whole(out / name, text.rstrip("\n") + "\n")


def _with_ratio(readings: Iterable[Reading]) -> list[Reading]:
    """Of one round, with the rate of an engine in the loop over that of the engine alone, where both were measured."""
    found = list(readings)
    rates = {(reading.section, reading.what): reading.value for reading in found}
    alone, inside = rates.get(("engine", "tokens")), rates.get(("loop", "tokens, an engine"))
    if alone and inside is not None:
        found.append(Reading("loop", "of the engine alone", "ratio", inside / alone))
    return sorted(found, key=lambda reading: list(dict.fromkeys(r.section for r in found)).index(reading.section))


def use(figures: Iterable[Figure], otherwise: str) -> str:
    """Ledger and NVML, or what is said in its place, side by side; empty if no run was measured."""
    medians = {figure.what: figure.median for figure in figures if figure.section == run.SECTION}
    lines = []
    for what, ledger in medians.items():
        name, found, _ = what.partition(f" {run.LEDGER}")
        if found:
            nvml = medians.get(f"{name} {run.NVML}")
            lines.append(f"  {name:<12}{ledger:>10.1f}%{otherwise if nvml is None else f'{nvml:.1f}%':>10}")
    return "\n".join([f"{'busy':<14}{'ledger':>11}{'NVML':>10}", *lines]) if lines else ""


def panels(figures: Sequence[Figure]) -> list[Panel]:
    """Rates of tokens together, whatever they are of; else what is of one part and unit."""

    def named(figure: Figure) -> Figure:
        return dataclasses.replace(figure, what=f"{figure.section}: {figure.what}")

    def of(section: str, unit: str) -> list[Figure]:
        return [figure for figure in figures if (figure.section, figure.unit) == (section, unit)]

    rates = [named(figure) for figure in figures if figure.unit == "tokens/s"]
    busy = [figure for figure in of(run.SECTION, "%") if figure.what.endswith((run.LEDGER, run.NVML))]
    return [
        Panel("tokens a second", rates),
        Panel("seconds of a learner step", of("learner", "s")),
        Panel("milliseconds of a push", [*of("push", "ms"), *map(named, of(run.SECTION, "ms"))]),
        Panel("per cent of the time in use", busy),
    ]
