"""Rates over a window of steps, against figures worked out by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.experiments.rate import Step, of_run, steady
from common.errors import PartFailed


def test_ends_are_left_out() -> None:
    steps = [Step(at, 10, 50.0) for at in (5.0, 6.0, 8.0, 10.0, 10.1)]
    rate = steady(steps, 1)
    assert (rate.steps, rate.seconds, rate.sequences, rate.tokens) == (3, 5.0, 30, 150.0)
    assert (rate.sequences_per_second, rate.tokens_per_second, rate.tokens_per_sequence) == (6.0, 30.0, 5.0)


def test_a_window_of_one_step() -> None:
    steps = [Step(at, count, 2.0 * count) for at, count in ((1.0, 7), (2.0, 7), (4.5, 5), (5.0, 9), (6.0, 9))]
    rate = steady(steps, 2)
    assert (rate.steps, rate.seconds, rate.sequences) == (1, 2.5, 5)


@pytest.mark.parametrize("count", [0, 1, 4])
def test_nothing_left_is_an_error(count: int) -> None:
    with pytest.raises(PartFailed, match=f"{count} steps"):
        steady([Step(float(at), 1, 1.0) for at in range(count)], 2)


@given(
    st.lists(st.tuples(st.floats(0.01, 10), st.integers(1, 300)), min_size=7, max_size=30),
    st.integers(1, 3),
    st.floats(0, 1e6),
)
def test_what_happened_at_the_ends_changes_nothing(steps: list[tuple[float, int]], skip: int, begin: float) -> None:
    def rate(first: float, last: int) -> tuple[int, float, int]:
        at, found = begin + first, []
        for number, (seconds, count) in enumerate(steps):
            at += seconds
            found.append(Step(at, last if number >= len(steps) - skip else count, 1.0))
        out = steady(found, skip)
        return out.steps, out.seconds, out.sequences

    one, other = rate(0.0, 1), rate(100.0, 1000)
    assert (one[0], one[2]) == (other[0], other[2]) == (len(steps) - 2 * skip, sum(n for _, n in steps[skip:-skip]))
    assert one[1] == pytest.approx(other[1], abs=1e-6)


def test_rows_that_are_no_steps_are_passed_over() -> None:
    rows: list[dict[str, float]] = [
        {"version": 0, "eval/deduction": 0.5},
        {"step": 0, "time": 3.5, "groups": 2, "sequences": 4, "tokens": 9},
        {"step": 0, "analysis/lost": 0},
    ]
    assert of_run(rows) == [Step(3.5, 4, 9.0)]
