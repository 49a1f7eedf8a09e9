"""What an actor's work costs, as sums from which a simulation can fit its costs (azr/simulation/measured.py).

Of each `what` (generate, executor, episode, pause): how many ended, and their `what/seconds` together. Of requests to
the engine besides, with n samples of T tokens in all, L in the longest of them, S seconds, and c sequences in the
engine meanwhile (those that wait for their prefill included), on average over time: the sums of n, T, nL, nS, and of
c, L, Lc, Lc², Sc for a least-squares fit; and the integral of c over time, `generate/area`.

A request that was cancelled or failed is in none of these: its seconds are `generate/lost`, and n times as many are
taken out of the area again.

Not exact: c is interpolated between the moments at which requests begin and end, and all samples of a lost request are
taken to have been in the engine until its end, though some may have been over before.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence


class CostSums:
    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._area = 0.0  # integral of running sequences over time
        self._level = 0.0
        self._since: float | None = None

    def ended(self, what: str, seconds: float) -> None:
        self._sums[what] += 1
        self._sums[f"{what}/seconds"] += seconds

    def lost(self, samples: int, seconds: float) -> None:
        """A request of `samples` has ended without an answer."""
        self._sums["generate/lost"] += seconds
        self._sums["generate/area"] -= samples * seconds

    def running(self, now: float, sequences: int, more: int = 0) -> float:
        """The integral since the first call, in sequences · seconds. `sequences` run, and `more` begin now."""
        grown = 0.0 if self._since is None else (self._level + sequences) / 2 * (now - self._since)
        self._area += grown
        if grown:
            self._sums["generate/area"] += grown
        self._level, self._since = sequences + more, now
        return self._area

    def request(self, lengths: Sequence[int], seconds: float, running: float) -> None:
        """`lengths`: tokens of each sample; `running`: sequences, on average over `seconds`."""
        samples, longest = len(lengths), max(lengths)
        for name, value in (
            ("samples", samples),
            ("tokens", sum(lengths)),
            ("samples_steps", samples * longest),
            ("samples_seconds", samples * seconds),
            ("running", running),
            ("steps", longest),
            ("steps_running", longest * running),
            ("steps_running2", longest * running**2),
            ("seconds_running", seconds * running),
        ):
            self._sums[f"generate/{name}"] += value

    def drain(self) -> dict[str, float]:
        """The sums since the last call."""
        sums, self._sums = self._sums, defaultdict(float)
        return dict(sums)
