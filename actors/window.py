"""How many episodes an actor may have open at once, learned from its engine and its executor (`engine.episodes=0`).

A congestion window: additive increase, multiplicative decrease (Chiu and Jain 1989), once per PERIOD. It shrinks when
for half of the period more requests queued in front of the engine than it decodes at a time, or no executor credit was
free, while no more was open than it allows: a cut takes effect as episodes end, and is judged then. It grows when for
half of it all episodes that it allows were open and the engine still had a free slot. What may queue keeps slots full
while episodes are with the executor (docs/staleness-control.md has what less costs); with more, proposals would only
grow stale while their answers wait for a slot.

Pure logic under an injected clock: what `note` is told holds until it is called again. Nothing is taken back: a window
that shrinks below what is open grants nothing until enough has ended. Where leases are short it stays as it is.

Invariant: 1 ≤ size ≤ `most`. Not guaranteed: that it fits a load which changes within a few periods.
"""

from __future__ import annotations

from common.clock import Clock

PERIOD = 0.5  # seconds
_STEPS = 32  # the window grows by this part of the engine's slots
_CUT = 8  # it shrinks by this part of itself


class Window:
    """`slots`: samples that the engine decodes at a time; every open episode wants one at least, and so it begins."""

    def __init__(self, slots: int, most: int, clock: Clock) -> None:
        self.size = min(slots, most)
        self._slots, self._most, self._clock = slots, most, clock
        self._began = self._since = clock.now()
        self._pressed = self._starved = False
        self._seconds_pressed = self._seconds_starved = 0.0

    def note(self, running: int, room: int, open_episodes: int) -> None:
        """Samples in flight in the engine, queued ones included; free executor credits; episodes under way."""
        now = self._clock.now()
        self._seconds_pressed += (now - self._since) * self._pressed
        self._seconds_starved += (now - self._since) * self._starved
        self._since = now
        if now - self._began >= PERIOD:
            self._adjust(now - self._began)
            self._began = now
        crowded = running - self._slots > self._slots or room <= 0
        self._pressed = crowded and open_episodes <= self.size
        self._starved = not crowded and running < self._slots and open_episodes >= self.size

    def _adjust(self, seconds: float) -> None:
        if self._seconds_pressed >= seconds / 2:
            self.size = max(1, self.size - max(1, self.size // _CUT))
        elif self._seconds_starved >= seconds / 2:
            self.size = min(self._most, self.size + max(1, self._slots // _STEPS))
        self._seconds_pressed = self._seconds_starved = 0.0
