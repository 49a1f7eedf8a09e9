"""Percentiles of what pushes cost, by hand and by their definition."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.push_span import PushCosts, PushSpan, Spread


def test_percentiles_by_hand() -> None:
    assert Spread.of([float(n) for n in range(200, 0, -1)]) == Spread(200, 100.0, 198.0, 200.0)
    assert Spread.of([2.0, 1.0, 4.0]) == Spread(3, 2.0, 4.0, 4.0)
    with pytest.raises(ValueError, match="no values"):
        Spread.of([])


@given(st.lists(st.floats(0.0, 1e3), min_size=1, max_size=250))
def test_each_percentile_is_the_least_value_that_enough_do_not_exceed(values: list[float]) -> None:
    spread = Spread.of(values)
    for percentile, share in ((spread.p50, 0.5), (spread.p99, 0.99)):
        assert percentile in values
        assert sum(v <= percentile for v in values) >= share * len(values)
        assert sum(v < percentile for v in values) < share * len(values)
    assert spread.max == max(values)


def test_costs_by_phase_and_the_decoding_beside_stages() -> None:
    spans = [
        PushSpan("stage", 1, 0.0, 0.25, tokens=30),
        PushSpan("stage", 2, 9.0, 0.75, tokens=0),
        PushSpan("pause", 1, 1.0, 0.5),
        PushSpan("commit", 1, 1.0, 0.625, tokens=5),
    ]
    costs = PushCosts.of(spans)
    assert list(costs.spreads) == ["stage", "pause", "commit"]
    assert costs.spreads["stage"] == Spread(2, 0.25, 0.75, 0.75)
    assert (costs.decoding, costs.tokens) == (1, 30)
    assert PushCosts.of([]) == PushCosts({}, 0, 0)
