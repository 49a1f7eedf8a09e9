"""Figures that a part counts from its start, summed over the times that it was started."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping


class Lives:
    """Not counted: what a part used between its last report and its death."""

    def __init__(self) -> None:
        self._before: Counter[str] = Counter()  # of lives that are over
        self._now: dict[str, float] = {}

    def began(self) -> None:
        """What is told from here on counts from a new start."""
        self._before.update(self._now)
        self._now = {}

    def tell(self, figures: Mapping[str, float]) -> None:
        self._now = dict(figures)

    @property
    def now(self) -> Mapping[str, float]:
        """Of this life."""
        return self._now

    @property
    def total(self) -> dict[str, float]:
        names = dict.fromkeys((*self._before, *self._now))
        return {name: self._before[name] + self._now.get(name, 0.0) for name in names}
