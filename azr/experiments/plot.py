"""Curves as an SVG, of shares unless a panel says otherwise: panels side by side, lines in them, a legend below.

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
    """`points` are (x, y), from 0 to the top of the panel and to the end of x. In the legend if it has a `name`."""

    points: Points
    colour: str
    width: float = 2.2
    dashed: bool = False
    name: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """Later lines lie over earlier ones. `top`: the largest y."""

    title: str
    lines: Sequence[Line]
    top: float = 1.0


def svg(panels: Sequence[Panel], end: float, axis: str, marks: Sequence[tuple[float, str]] = ()) -> str:
    """`end`: the largest x; `axis`: what x is; `marks`: where it is labelled and how, by default at both ends.

    The legend has each name once, those of the first panel first and the topmost line of a panel first.
    """
    marks = marks or ((0.0, "0"), (end, f"{end:g}"))
    width, height = LEFT + len(panels) * (WIDTH + GAP), TOP + HEIGHT + 80
    drawn = [_panel(LEFT + place * (WIDTH + GAP), panel, end, axis, marks) for place, panel in enumerate(panels)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join([*drawn, _legend(panels, width - LEFT)])
        + "\n</svg>\n"
    )


def _panel(left: float, panel: Panel, end: float, axis: str, marks: Sequence[tuple[float, str]]) -> str:
    parts = [_text(left + WIDTH / 2, TOP - 12, panel.title, "middle", "black")]
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = _y(tick)
        parts.append(_line([(left, y), (left + WIDTH, y)], _LIGHT, 1))
        parts.append(_text(left - 6, y + 4, f"{tick * panel.top:.3g}", "end", GREY))
    for x, label in marks:
        parts.append(_text(left + WIDTH * x / (end or 1), TOP + HEIGHT + 18, label, "middle", GREY))
    parts.append(_text(left + WIDTH / 2, TOP + HEIGHT + (18 if len(marks) == 2 else 34), axis, "middle", GREY))
    for line in panel.lines:
        points = [(left + WIDTH * x / (end or 1), _y(y / panel.top)) for x, y in line.points]
        parts.append(_line(points, line.colour, line.width, line.dashed))
    return "\n".join(parts)


def _legend(panels: Sequence[Panel], width: float) -> str:
    lines = {line.name: line for panel in panels for line in reversed(panel.lines) if line.name}
    y = TOP + HEIGHT + 52
    parts = []
    for number, line in enumerate(lines.values()):
        x = LEFT + number * min(_ENTRY, width / len(lines))
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
