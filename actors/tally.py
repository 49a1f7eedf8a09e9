"""What an actor's work costs, as sums from which a simulation can fit its costs (azr/simulation/measured.py).

Of each `what` (generate, executor, episode, pause): how many ended, and their `what/seconds` together. Of requests to
the engine besides, with L the tokens of a request's longest sample, T its seconds and c the sequences that ran
meanwhile, on average over time: the sums of L, Lc, Lc² and Tc, which are what a least-squares fit of T = L (a + b c)
with weights 1/L needs.

Not exact: c is interpolated between the moments at which requests begin and end.
"""

from __future__ import annotations

from collections import defaultdict


class Tally:
    def __init__(self) -> None:
        self._sums: defaultdict[str, float] = defaultdict(float)
        self._area = 0.0  # integral of running sequences over time
        self._level, self._since = 0.0, 0.0

    def ended(self, what: str, seconds: float) -> None:
        self._sums[what] += 1
        self._sums[f"{what}/seconds"] += seconds

    def running(self, now: float, sequences: int, more: int = 0) -> float:
        """The integral until `now`, in sequences · seconds. `sequences` run, and `more` begin now."""
        self._area += (self._level + sequences) / 2 * (now - self._since)
        self._level, self._since = sequences + more, now
        return self._area

    def request(self, longest: int, seconds: float, running: float) -> None:
        """`longest`: tokens; `running`: sequences, on average over `seconds`."""
        for name, value in (
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
