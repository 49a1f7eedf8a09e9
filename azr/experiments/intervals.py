"""Means of right answers with bootstrap intervals over base seeds, RL seeds and tasks.

What was measured is nested: base models, for each the runs that started from it (RL seeds), and tasks, which all runs
of a base answered alike. A resample therefore draws base models with replacement; for each drawn one it draws among
its runs and, crossed with these, among its tasks (a crossed, multi-level bootstrap; Owen 2007, "The pigeonhole
bootstrap"). Intervals are percentiles of the resampled means.

Not guaranteed: coverage with few seeds, where percentile intervals are too narrow; with one base (or one seed)
nothing is said about other bases (or seeds).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
Measured = Sequence[Sequence[FloatArray]]  # [base][task set] → float64 [runs of the base, tasks of the set]

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Interval:
    mean: float
    low: float
    high: float


def mean(measured: Measured) -> float:
    """Bases count alike, and within a base the task sets, whatever their sizes."""
    return float(np.mean([[values.mean() for values in base] for base in measured]))


def bootstrap(measured: Measured, level: float = 0.95, seed: int = 0) -> Interval:
    """The mean and its interval. All task sets of a base have the same runs in the same order.

    Deterministic at a seed. ValueError if anything is empty.
    """
    if not measured or any(values.size == 0 for base in measured for values in base):
        raise ValueError("nothing was measured")
    rng = np.random.default_rng(seed)
    drawn = np.zeros(RESAMPLES)
    bases = rng.integers(len(measured), size=(RESAMPLES, len(measured)))
    for place in range(len(measured)):
        for number, base in enumerate(measured):
            here = np.flatnonzero(bases[:, place] == number)
            runs = _counts(rng, len(here), base[0].shape[0])
            for values in base:
                tasks = _counts(rng, len(here), values.shape[1])
                sums = np.einsum("rs,st,rt->r", runs, values, tasks, optimize=True)
                drawn[here] += sums / values.size / len(base)
    low, high = np.quantile(drawn / len(measured), [(1 - level) / 2, (1 + level) / 2])
    return Interval(mean(measured), float(low), float(high))


def _counts(rng: np.random.Generator, resamples: int, size: int) -> FloatArray:
    """How often each of `size` things is drawn in as many draws: float64 [resamples, size]."""
    return rng.multinomial(size, np.full(size, 1 / size), size=resamples).astype(np.float64)
