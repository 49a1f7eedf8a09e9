"""What overlap brings: runs back to back on the same cores, and against lock-step with all of them open.

With G and T seconds per step of the lock-step run, no schedule that keeps generating and training on their cores can
take less than max(G, T) per step, so its rate is at most (G + T) / max(G, T) times that of lock-step: the bound. What
goes beyond it is noise, or a G that was shorter without the start and the tail of each batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

from azr.experiments.pace import Pace
from azr.experiments.results import Target

LOCKSTEP, OVERLAP, BOTH = "lock-step", "overlap", "both-cores"
CELLS = (LOCKSTEP, OVERLAP, BOTH)
LEAST_STEP = 3.0  # seconds: shorter ones measure start-up and the tail of batches
BALANCED = 0.15  # by which the longer of G and T may exceed the shorter
REACHED = 0.9  # of the bound
SPEEDUP = 1.8


@dataclass(frozen=True, slots=True)
class Pair:
    """Three runs with one seed."""

    seed: int
    lockstep: Pace
    overlap: Pace
    both: Pace

    @property
    def bound(self) -> float:
        phases = self.lockstep.generating, self.lockstep.training
        return sum(phases) / max(phases)

    @property
    def balance(self) -> float:
        """By how much the longer of G and T exceeds the shorter, as a share of it."""
        phases = self.lockstep.generating, self.lockstep.training
        return max(phases) / min(phases) - 1.0

    @property
    def speedup(self) -> float:
        return self.overlap.rate / self.lockstep.rate

    @property
    def reached(self) -> float:
        return self.speedup / self.bound

    @property
    def over_both(self) -> float:
        return self.overlap.rate / self.both.rate


def whole(runs: Mapping[int, Mapping[str, Pace]]) -> list[Pair]:
    """Of runs by seed and cell, the seeds of which all three are there."""
    found = {seed: by_cell for seed, by_cell in sorted(runs.items()) if len(by_cell) == len(CELLS)}
    return [Pair(seed, *(by_cell[name] for name in CELLS)) for seed, by_cell in found.items()]


@dataclass(frozen=True, slots=True)
class Spread:
    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Self:
        return cls(median(values), min(values), max(values))

    def told(self, digits: int) -> str:
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


def spread(pairs: Sequence[Pair], figure: Callable[[Pair], float]) -> Spread:
    return Spread.of([figure(pair) for pair in pairs])


def targets(pairs: Sequence[Pair]) -> list[Target]:
    """What the experiment is to show, judged by medians, but the length of steps by the shortest."""
    if not pairs:
        return [Target(text, None) for text in _TEXTS]
    step = spread(pairs, lambda pair: min(pair.lockstep.step, pair.overlap.step))
    balance = spread(pairs, lambda pair: pair.balance)
    reached = spread(pairs, lambda pair: pair.reached)
    speedup = spread(pairs, lambda pair: pair.speedup)
    found = (
        (step.low >= LEAST_STEP, f"{step.low:.2f} s"),
        (balance.median <= BALANCED, balance.told(3)),
        (reached.median >= REACHED, reached.told(3)),
        (speedup.median >= SPEEDUP, speedup.told(3)),
    )
    return [Target(text, *verdict) for text, verdict in zip(_TEXTS, found, strict=True)]


_TEXTS = (
    f"every step takes at least {LEAST_STEP:g} s",
    f"G and T differ by at most {BALANCED:.0%}",
    f"overlap reaches at least {REACHED:.0%} of (G + T) / max(G, T)",
    f"overlap trains at least {SPEEDUP:g} times the sequences of lock-step",
)
