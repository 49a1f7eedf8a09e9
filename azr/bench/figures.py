"""Figures: what was measured several times, as medians with their spread, beside what was hoped for."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_HEAD = ("", "median", "least", "most", "", "target")


@dataclass(frozen=True, slots=True)
class Reading:
    """One measurement. Equal (`section`, `what`) are repeats of each other."""

    section: str
    what: str
    unit: str
    value: float


@dataclass(frozen=True, slots=True)
class Figure:
    """`values` of all repeats; `target` is text for people, and nothing depends on it."""

    section: str
    what: str
    unit: str
    values: tuple[float, ...]
    target: str = ""

    @property
    def median(self) -> float:
        return statistics.median(self.values)


def collect(readings: Iterable[Reading], targets: dict[tuple[str, str], str]) -> list[Figure]:
    """One figure for each thing that was read, in the order of first readings."""
    found: dict[tuple[str, str], list[Reading]] = {}
    for reading in readings:
        found.setdefault((reading.section, reading.what), []).append(reading)
    return [
        Figure(*place, repeats[0].unit, tuple([repeat.value for repeat in repeats]), targets.get(place, ""))
        for place, repeats in found.items()
    ]


def percentile(values: Sequence[float], share: float) -> float:
    """The least of `values` that `share` (0 to 1) of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def table(figures: Sequence[Figure]) -> str:
    lines: list[tuple[str, ...]] = [_HEAD]
    section = ""
    for figure in figures:
        if figure.section != section:
            section = figure.section
            lines.append((section, "", "", "", "", ""))
        numbers = (figure.median, min(figure.values), max(figure.values))
        lines.append((f"  {figure.what}", *map(_number, numbers), figure.unit, figure.target))
    widths = [max(map(len, column)) for column in zip(*[line for line in lines if any(line[1:])], strict=True)]
    return "\n".join(_line(line, widths) for line in lines)


def _line(line: Sequence[str], widths: Sequence[int]) -> str:
    what, *numbers, unit, target = [
        cell.rjust(width) if 0 < place < 4 else cell.ljust(width)
        for place, (cell, width) in enumerate(zip(line, widths, strict=True))
    ]
    return "  ".join([what, *numbers, unit, target]).rstrip()


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.3g}"
