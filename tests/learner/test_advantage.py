"""Advantages, whitened within each stream, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.types import STREAMS, Kind
from learner.advantage import MIN_SEQUENCES, whiten

P, S, T = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION, Kind.SOLVE_INDUCTION


def test_by_hand() -> None:
    # mean 0, squared deviations 1 + 1 + 0 + 0, divided by n − 1 = 3
    advantages, silent = whiten([S] * 4, [1.0, -1.0, 0.0, 0.0])
    assert advantages.tolist() == pytest.approx([math.sqrt(1.5), -math.sqrt(1.5), 0.0, 0.0])
    assert advantages.dtype == np.float32
    assert silent == ()


def test_streams_do_not_see_each_other() -> None:
    # S as above; P has mean 100 and the same deviations, in another order and in between
    advantages, _ = whiten([S, P, S, P, P, S, S, P], [1.0, 101.0, -1.0, 100.0, 99.0, 0.0, 0.0, 100.0])
    assert advantages[[0, 2, 5, 6]].tolist() == pytest.approx(advantages[[1, 4, 3, 7]].tolist())


def test_a_stream_with_too_few_sequences_is_silent() -> None:
    advantages, silent = whiten([S] * (MIN_SEQUENCES - 1), [1.0, 0.0, 0.5])
    assert advantages.tolist() == [0.0, 0.0, 0.0]
    assert silent == (S,)


def test_a_stream_without_variance_is_silent_and_others_are_not() -> None:
    advantages, silent = whiten([S] * 4 + [T] * 4, [-0.5] * 4 + [1.0, -0.5, -0.5, -0.5])
    assert advantages[:4].tolist() == [0.0] * 4
    # T: mean −1/8, deviations 9/8 and thrice −3/8, variance (81 + 27)/64/3 = 9/16
    assert advantages[4:].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert silent == (S,)


def test_absent_streams_are_not_silent() -> None:
    advantages, silent = whiten([], [])
    assert (advantages.shape, silent) == ((0,), ())


rewards = st.lists(
    st.tuples(st.sampled_from(STREAMS), st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0])), min_size=1, max_size=60
)


@given(rewards)
def test_each_stream_has_mean_0_and_variance_1_or_is_silent(pairs: list[tuple[Kind, float]]) -> None:
    streams, values = [s for s, _ in pairs], [r for _, r in pairs]
    advantages, silent = whiten(streams, values)
    for stream in set(streams):
        of = np.array([a for s, a in zip(streams, advantages, strict=True) if s is stream], dtype=np.float64)
        if stream in silent:
            assert not of.any()
        else:
            assert of.mean() == pytest.approx(0.0, abs=1e-5)
            assert of.var(ddof=1) == pytest.approx(1.0, rel=1e-5)


@given(rewards, st.randoms(use_true_random=False))
def test_order_does_not_matter(pairs: list[tuple[Kind, float]], rng: object) -> None:
    order = list(range(len(pairs)))
    rng.shuffle(order)  # type: ignore[attr-defined]
    straight, _ = whiten([s for s, _ in pairs], [r for _, r in pairs])
    shuffled, _ = whiten([pairs[i][0] for i in order], [pairs[i][1] for i in order])
    np.testing.assert_allclose(shuffled, straight[order], atol=1e-6)
