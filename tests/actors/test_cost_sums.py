"""Sums of what work costs, by hand."""

from __future__ import annotations

from actors.cost_sums import CostSums


def test_sequences_that_run_are_interpolated_between_moments() -> None:
    sums = CostSums()
    begin = sums.running(10.0, 0, more=4)
    between = sums.running(12.0, 2, more=2)  # 4 → 2: 6 sequence seconds
    end = sums.running(13.0, 4)  # 4 → 4
    assert (between - begin, end - begin) == (6.0, 10.0)
    assert sums.drain() == {"generate/area": 10.0}


def test_what_ran_before_the_first_moment_is_unknown_and_not_counted() -> None:
    sums = CostSums()
    assert sums.running(1.7e9, 3) == 0.0  # a wall clock
    assert sums.running(1.7e9 + 2.0, 3) == 6.0
    assert sums.drain() == {"generate/area": 6.0}


def test_a_lost_request_leaves_the_area_of_the_others() -> None:
    sums = CostSums()
    sums.running(10.0, 0, more=4)
    sums.running(11.0, 4, more=2)
    assert sums.running(13.0, 6) == 16.0  # all that ran
    sums.lost(2, 2.0)
    assert sums.drain() == {"generate/area": 12.0, "generate/lost": 2.0}  # 4 sequences for 3 seconds


def test_sums_are_those_of_a_weighted_fit_and_begin_anew() -> None:
    sums = CostSums()
    sums.request([10, 4], 2.0, 3.0)
    sums.request([20], 1.0, 5.0)
    sums.ended("executor", 0.5)
    sums.ended("executor", 0.25)
    assert sums.drain() == {
        "generate/samples": 3,
        "generate/tokens": 34,
        "generate/samples_steps": 40,
        "generate/samples_seconds": 5.0,
        "generate/running": 8.0,
        "generate/steps": 30.0,
        "generate/steps_running": 130.0,
        "generate/steps_running2": 590.0,
        "generate/seconds_running": 11.0,
        "executor": 2,
        "executor/seconds": 0.75,
    }
    assert sums.drain() == {}
