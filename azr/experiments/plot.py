"""Curves of shares as an SVG: panels side by side, lines in them, a legend below.

Plain text by hand, so that nothing is to be installed; every browser and GitHub show it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

WIDTH, HEIGHT, GAP, LEFT, TOP = 280, 220, 44, 48, 40
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00")  # Okabe and Ito: told apart by the colour-blind
GREY = "#767676"
_ENTRY = 155  # width of a legend's entry, where there is room
_LIGHT = "#dddddd"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Line:
    """`points` are (x, share); x from 0 to the right end of all panels. In the legend if it has a `name`."""

    points: Points
    colour: str
    width: float = 2.2
    dashed: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Later lines lie over earlier ones."""

    title: str
    lines: Sequence[Line]


def svg(panels: Sequence[Panel], end: int, axis: str) -> str:
    """`end`: the largest x; `axis`: what x is. The legend is that of the first panel, the topmost first."""
    width, height = LEFT + len(panels) * (WIDTH + GAP), TOP + HEIGHT + 80
    drawn = [_panel(LEFT + place * (WIDTH + GAP), panel, end, axis) for place, panel in enumerate(panels)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join([*drawn, _legend(panels[0].lines, width - LEFT)])
        + "\n</svg>\n"
    )


def _panel(left: float, panel: Panel, end: int, axis: str) -> str:
    parts = [_text(left + WIDTH / 2, TOP - 12, panel.title, "middle", "black")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(tick)
        parts.append(_line([(left, y), (left + WIDTH, y)], _LIGHT, 1))
        parts.append(_text(left - 6, y + 4, f"{tick:g}", "end", GREY))
    for x in (0, end):
        parts.append(_text(left + WIDTH * x / max(end, 1), TOP + HEIGHT + 18, str(x), "middle", GREY))
    parts.append(_text(left + WIDTH / 2, TOP + HEIGHT + 18, axis, "middle", GREY))
    for line in panel.lines:
        points = [(left + WIDTH * x / max(end, 1), _y(share)) for x, share in line.points]
        parts.append(_line(points, line.colour, line.width, line.dashed))
    return "\n".join(parts)


def _legend(lines: Sequence[Line], width: float) -> str:
    y = TOP + HEIGHT + 52
    parts = []
    named = [line for line in reversed(lines) if line.name]
    for number, line in enumerate(named):
        x = LEFT + number * min(_ENTRY, width / len(named))
        parts.append(_line([(x, y - 4), (x + 24, y - 4)], line.colour, line.width, line.dashed))
        parts.append(_text(x + 30, y, line.name, "start", "black"))
    return "\n".join(parts)


def _y(share: float) -> float:
    return TOP + HEIGHT * (1 - share)


def _line(points: Points, colour: str, width: float, dashed: bool = False) -> str:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if dashed else ""
    return f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width}"{dashes}/>'


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
