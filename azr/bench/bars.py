"""Figures as an SVG of bars: a panel per unit, a bar to the median, a whisker from the least to the most.

Plain text by hand, like azr/experiments/plot.py, whose colours these are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from azr.bench.figures import Figure
from azr.experiments.plot import COLOURS, GREY

LABELS, BARS, VALUES = 330, 360, 90  # widths
ROW, HEAD, GAP = 20, 30, 14  # heights


@dataclass(frozen=True, slots=True)
class Panel:
    """Bars that share a scale, from 0."""

    title: str
    figures: Sequence[Figure]

    @property
    def height(self) -> int:
        return HEAD + ROW * len(self.figures) + GAP


def svg(panels: Iterable[Panel]) -> str:
    """One below the other; those without figures are left out."""
    parts: list[str] = []
    top = 0
    for number, panel in enumerate(panel for panel in panels if panel.figures):
        parts.append(_panel(panel, top, COLOURS[number % len(COLOURS)]))
        top += panel.height
    width = LABELS + BARS + VALUES
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" height="{top}" '
        f'font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def _panel(panel: Panel, top: int, colour: str) -> str:
    most = max(max(figure.values) for figure in panel.figures) or 1.0
    parts = [_text(8, top + HEAD - 10, panel.title, "start", "black")]
    for row, figure in enumerate(panel.figures):
        y = top + HEAD + ROW * row
        end, least, longest = (
            LABELS + BARS * value / most for value in (figure.median, min(figure.values), max(figure.values))
        )
        middle = y + ROW / 2 - 2
        parts += [
            _text(LABELS - 8, y + 13, figure.what, "end", "black"),
            f'<rect x="{LABELS}" y="{y + 2}" width="{end - LABELS:.1f}" height="{ROW - 8}" fill="{colour}"/>',
            f'<line x1="{least:.1f}" x2="{longest:.1f}" y1="{middle}" y2="{middle}" stroke="{GREY}" stroke-width="2"/>',
            _text(max(end, longest) + 6, y + 13, f"{figure.median:,.4g}", "start", GREY),
        ]
    return "\n".join(parts)


def _text(x: float, y: float, text: str, anchor: str, colour: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">{escape(text)}</text>'
