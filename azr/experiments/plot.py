"""The learning curves as an SVG: a panel per task type, a line per cell, thin lines for single runs of the first cell.

Plain text by hand, so that nothing is to be installed; every browser and GitHub show it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

from azr.experiments.results import CellResult
from common.types import TASK_TYPES, TaskType

WIDTH, HEIGHT, GAP, LEFT, TOP = 280, 220, 44, 48, 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # Okabe and Ito: told apart by the colour-blind
GREY = "#767676"


def svg(cells: Mapping[str, CellResult], forced: Mapping[str, float], last: int) -> str:
    """`forced`: accuracy of the base with the thought begun, per task type; `last`: the last version."""
    panels = [_panel(x, t, cells, forced.get(t), last) for x, t in zip(range(3), TASK_TYPES, strict=True)]
    width, height = LEFT + 3 * (WIDTH + GAP), TOP + HEIGHT + 80
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join([*panels, _legend(list(cells), bool(forced))])
        + "\n</svg>\n"
    )


def _panel(place: int, task_type: TaskType, cells: Mapping[str, CellResult], forced: float | None, last: int) -> str:
    left = LEFT + place * (WIDTH + GAP)
    parts = [_text(left + WIDTH / 2, TOP - 12, f"held-out {task_type}", "middle", "black")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(tick)
        parts.append(_line([(left, y), (left + WIDTH, y)], "#dddddd", 1))
        parts.append(_text(left - 6, y + 4, f"{tick:g}", "end", GREY))
    for version in (0, last):
        parts.append(_text(_x(left, version, last), TOP + HEIGHT + 18, str(version), "middle", GREY))
    parts.append(_text(left + WIDTH / 2, TOP + HEIGHT + 18, "version", "middle", GREY))
    if forced is not None:
        parts.append(_line([(left, _y(forced)), (left + WIDTH, _y(forced))], GREY, 1.5, dashed=True))
    for number, (_, result) in reversed(list(enumerate(cells.items()))):
        curve = result.curves.get(task_type)
        if curve is None:
            continue
        xs = [_x(left, version, last) for version in curve.versions]
        for run in curve.runs if number == 0 else ():
            parts.append(_line(list(zip(xs, map(_y, run), strict=True)), COLOURS[0], 0.6))
        parts.append(_line(list(zip(xs, map(_y, curve.mean), strict=True)), COLOURS[number % len(COLOURS)], 2.2))
    return "\n".join(parts)


def _legend(names: Sequence[str], forced: bool) -> str:
    y = TOP + HEIGHT + 52
    entries = [(name, COLOURS[number % len(COLOURS)], False) for number, name in enumerate(names)]
    entries += [("base, thought forced", GREY, True)] if forced else []
    parts = []
    for number, (name, colour, dashed) in enumerate(entries):
        x = LEFT + number * 155
        parts.append(_line([(x, y - 4), (x + 24, y - 4)], colour, 2.2, dashed=dashed))
        parts.append(_text(x + 30, y, name, "start", "black"))
    return "\n".join(parts)


def _x(left: float, version: int, last: int) -> float:
    return left + WIDTH * version / max(last, 1)


def _y(share: float) -> float:
    return TOP + HEIGHT * (1 - share)


def _line(points: Sequence[tuple[float, float]], colour: str, width: float, *, dashed: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
