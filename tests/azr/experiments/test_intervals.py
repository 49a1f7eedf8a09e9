"""Bootstrap intervals, against distributions worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.experiments.intervals import FloatArray, Interval, bootstrap, mean


def runs(*rows: list[float]) -> FloatArray:
    return np.array(rows, dtype=np.float64)


def test_the_mean_counts_bases_alike_and_task_sets_alike() -> None:
    one = [runs([1.0, 1.0, 1.0, 0.0]), runs([0.0])]  # 3/4 and 0
    two = [runs([1.0], [0.0]), runs([1.0], [1.0])]  # 1/2 and 1
    assert mean([one, two]) == pytest.approx((0.375 + 0.75) / 2)
    assert bootstrap([one, two]).mean == mean([one, two])


def test_what_never_varies_has_no_interval() -> None:
    assert bootstrap([[runs([0.5, 0.5], [0.5, 0.5])]]) == Interval(0.5, 0.5, 0.5)


def test_over_tasks() -> None:
    """One run, one right of four: resamples are Binomial(4, 1/4)/4. P(0) = 0.316, P(≤ 2) = 0.949, P(≤ 3) = 0.996."""
    assert bootstrap([[runs([1.0, 0.0, 0.0, 0.0])]]) == Interval(0.25, 0.0, 0.75)
    # at 80 % the tails are 0.1: P(≤ 1) = 0.738, P(≤ 2) = 0.949
    assert bootstrap([[runs([1.0, 0.0, 0.0, 0.0])]], level=0.8) == Interval(0.25, 0.0, 0.5)


def test_over_runs_that_answered_the_same_tasks() -> None:
    """Runs that differ everywhere: Binomial(2, 1/2)/2, and 1000 tasks make the interval no narrower."""
    assert bootstrap([[runs([0.0] * 1000, [1.0] * 1000)]]) == Interval(0.5, 0.0, 1.0)


def test_tasks_are_drawn_once_for_all_runs() -> None:
    """Three equal runs know no more than one: a task that is easy is so for all of them."""
    row = [1.0, 0.0, 0.0, 0.0]
    assert bootstrap([[runs(row, row, row)]]) == Interval(0.25, 0.0, 0.75)


def test_over_bases() -> None:
    """Bases that differ everywhere, each with many runs and tasks: Binomial(2, 1/2)/2."""
    assert bootstrap([[np.zeros((5, 100))], [np.ones((5, 100))]]) == Interval(0.5, 0.0, 1.0)


def test_runs_are_drawn_once_for_all_task_sets() -> None:
    """A run that is good at one set and bad at the other has the same mean over sets as its opposite."""
    assert bootstrap([[runs([0.0], [1.0]), runs([1.0], [0.0])]]) == Interval(0.5, 0.5, 0.5)


def test_what_was_not_measured_has_no_interval() -> None:
    for empty in ([], [[np.zeros((1, 0))]]):
        with pytest.raises(ValueError, match="nothing was measured"):
            bootstrap(empty)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 12), st.integers(0, 5))
def test_an_interval_holds_its_mean_and_only_what_can_be(bases: int, count: int, tasks: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    measured = [[rng.integers(0, 2, (count, tasks)).astype(np.float64)] for _ in range(bases)]
    wide, narrow = bootstrap(measured), bootstrap(measured, level=0.5)
    assert 0 <= wide.low <= narrow.low <= narrow.high <= wide.high <= 1
    assert wide.low <= wide.mean <= wide.high
    assert bootstrap(measured) == wide
