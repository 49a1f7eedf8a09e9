"""The time ledger: a process is in exactly one state at a time, so its states sum to its wall time.

Spans carry seconds of the machine's wall clock, anchored once and advanced monotonically, so that the spans of several
processes of one machine lie on one axis.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Ledger:
    """`enter` ends the state before. `drain` hands over finished spans and cumulative seconds per state.

    One thread enters states; another may drain.
    """

    def __init__(self, initial: str = "start", now: Callable[[], float] | None = None) -> None:
        self._anchor = time.time() - time.monotonic()
        self.now = now or self._wall
        self._state = initial
        self._since = self.now()
        self._totals: dict[str, float] = {}
        self._spans: list[tuple[str, float, float]] = []
        self._lock = threading.Lock()

    @property
    def state(self) -> str:
        return self._state

    def enter(self, state: str) -> None:
        if state == self._state:
            return
        with self._lock:
            self._close()
            self._state = state

    def drain(self) -> tuple[dict[str, float], tuple[tuple[str, float, float], ...]]:
        """(seconds per state since the start, spans that ended since the last drain)."""
        with self._lock:
            self._close()
            spans, self._spans = tuple(self._spans), []
            return dict(self._totals), spans

    def _wall(self) -> float:
        return self._anchor + time.monotonic()

    def _close(self) -> None:
        now = self.now()
        if now > self._since:
            self._totals[self._state] = self._totals.get(self._state, 0.0) + now - self._since
            self._spans.append((self._state, self._since, now))
        self._since = now
