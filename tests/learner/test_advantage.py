"""Advantages by hand, and what holds of all of them."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.types import STREAMS, Kind
from learner.advantage import MIN_SEQUENCES, Advantages, shuffle, whiten

P, S, T = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION, Kind.SOLVE_INDUCTION


def test_by_hand() -> None:
    # mean 0, squared deviations 1 + 1 + 0 + 0, divided by n − 1 = 3
    advantages, silent, _ = whiten([S] * 4, [1.0, -1.0, 0.0, 0.0])
    assert advantages.tolist() == pytest.approx([math.sqrt(1.5), -math.sqrt(1.5), 0.0, 0.0])
    assert advantages.dtype == np.float32
    assert silent == ()


def test_streams_do_not_see_each_other() -> None:
    # S as above; P has mean 100 and the same deviations, in another order and in between
    advantages, *_ = whiten([S, P, S, P, P, S, S, P], [1.0, 101.0, -1.0, 100.0, 99.0, 0.0, 0.0, 100.0])
    assert advantages[[0, 2, 5, 6]].tolist() == pytest.approx(advantages[[1, 4, 3, 7]].tolist())


def test_a_stream_with_too_few_sequences_is_silent() -> None:
    advantages, silent, _ = whiten([S] * (MIN_SEQUENCES - 1), [1.0, 0.0, 0.5])
    assert advantages.tolist() == [0.0, 0.0, 0.0]
    assert silent == (S,)


def test_a_stream_without_variance_is_silent_and_others_are_not() -> None:
    advantages, silent, _ = whiten([S] * 4 + [T] * 4, [-0.5] * 4 + [1.0, -0.5, -0.5, -0.5])
    assert advantages[:4].tolist() == [0.0] * 4
    # T: mean −1/8, deviations 9/8 and thrice −3/8, variance (81 + 27)/64/3 = 9/16
    assert advantages[4:].tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert silent == (S,)


def test_absent_streams_are_not_silent() -> None:
    advantages, silent, _ = whiten([], [])
    assert (advantages.shape, silent) == ((0,), ())


def test_over_tokens_by_hand() -> None:
    # rewards 1, −1, −1, −1 of 3, 1, 1 and 1 tokens: over the six tokens 1 1 1 −1 −1 −1, whose mean is 0 and whose
    # squared deviations add up to 6, so the variance is 6/5
    advantages, *_ = whiten([S] * 4, [1.0, -1.0, -1.0, -1.0], tokens=[3, 1, 1, 1])
    root = math.sqrt(5 / 6)
    assert advantages.tolist() == pytest.approx([root, -root, -root, -root])
    # over the four sequences the mean is −1/2 and the variance 1
    advantages, *_ = whiten([S] * 4, [1.0, -1.0, -1.0, -1.0])
    assert advantages.tolist() == pytest.approx([1.5, -0.5, -0.5, -0.5])


def test_answers_to_one_task_are_compared_with_each_other() -> None:
    # task 0, easy: 1 1 −½ with mean ½; task 1, hard: −½ −½ 1 with mean 0; deviations ½ ½ −1 and −½ −½ 1,
    # squares 3/2 + 3/2 over 6 answers less 2 means: variance 3/4
    streams, values = [S] * 6, [1.0, -0.5, 1.0, -0.5, -0.5, 1.0]
    advantages, silent, silent_tasks = whiten(streams, values, tasks=[0, 1, 0, 1, 0, 1])
    scale = 1 / math.sqrt(0.75)
    expected = [0.5 * scale, -0.5 * scale, 0.5 * scale, -0.5 * scale, -1.0 * scale, 1.0 * scale]
    assert advantages.tolist() == pytest.approx(expected)
    assert (silent, silent_tasks) == ((), 0)


def test_proposals_are_compared_with_their_stream_whatever_their_tasks() -> None:
    streams, values = [P] * 4 + [S] * 4, [1.0, -1.0, 0.0, 0.0, 1.0, -0.5, 1.0, -0.5]
    advantages, *_ = whiten(streams, values, tasks=[0, 1, 2, 3, 0, 0, 1, 1])
    assert advantages[:4].tolist() == whiten([P] * 4, values[:4]).values.tolist()


def test_tasks_too_small_or_without_variance_carry_no_signal_and_are_counted() -> None:
    # task 0 has one answer, all answers to task 1 are paid alike, task 2 tells: ¾ −¾, and the variance is
    # 2 · 9/16 over (2 + 3) answers less 2 means
    streams, values, tasks = [S] * 6, [1.0, -0.5, -0.5, -0.5, 1.0, -0.5], [0, 1, 1, 1, 2, 2]
    advantages, silent, silent_tasks = whiten(streams, values, tasks=tasks)
    root = math.sqrt(3 / 2)
    assert advantages.tolist() == pytest.approx([0.0, 0.0, 0.0, 0.0, root, -root])
    assert (silent, silent_tasks) == ((), 2)
    advantages, silent, silent_tasks = whiten(streams[:4], values[:4], tasks=tasks[:4])
    assert (advantages.tolist(), silent, silent_tasks) == ([0.0] * 4, (S,), 2)


def test_all_tasks_of_a_silent_stream_are_counted() -> None:
    """Two answers that differ and one alone: three sequences, of which two are compared, are too few."""
    advantages, silent, silent_tasks = whiten([S] * 3, [1.0, -0.5, 1.0], tasks=[0, 0, 1])
    assert (advantages.tolist(), silent, silent_tasks) == ([0.0] * 3, (S,), 2)
    # beside a stream that tells, whose one silent task is counted alone
    advantages, silent, silent_tasks = whiten(
        [S] * 3 + [T] * 6, [1.0, -0.5, 1.0, *[1.0, -0.5] * 2, 1.0, 1.0], tasks=[0, 0, 1, 2, 2, 3, 3, 4, 4]
    )
    assert (silent, silent_tasks) == ((S,), 2 + 1)
    assert whiten([S] * 3, [1.0, -0.5, 1.0]).silent_tasks == 0


def test_over_tokens_a_task_of_one_answer_does_not_widen_the_deviation() -> None:
    """Four sequences of two tokens each, 1 and -1 twice: variance 8 over 8 tokens less 2 means, whatever a fifth is."""
    streams, tasks, tokens = [S] * 5, [0, 0, 1, 1, 2], [2, 2, 2, 2, 100]
    advantages, *_ = whiten(streams, [1.0, -1.0, 1.0, -1.0, 1.0], tokens=tokens, tasks=tasks)
    assert advantages.tolist() == pytest.approx([math.sqrt(0.75), -math.sqrt(0.75)] * 2 + [0.0])


def test_a_control_deals_rewards_within_their_streams_only() -> None:
    streams, values = [S, P, S, P, S, P] * 10, [float(i) for i in range(60)]
    dealt = shuffle(streams, values, seed=3)
    for stream in (S, P):
        of = [i for i, s in enumerate(streams) if s is stream]
        assert sorted(dealt[i] for i in of) == [values[i] for i in of]
    assert dealt != values
    assert dealt == shuffle(streams, values, seed=3) != shuffle(streams, values, seed=4)


Row = tuple[Kind, float, int, int]  # stream, reward, tokens, task
rows = st.lists(
    st.tuples(
        st.sampled_from(STREAMS), st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), st.integers(1, 50), st.integers(0, 5)
    ),
    min_size=1,
    max_size=60,
)


def advantages_of(found: list[Row], by_tokens: bool, by_task: bool) -> Advantages:
    streams, values, tokens, tasks = zip(*found, strict=True)
    return whiten(streams, values, tokens=tokens if by_tokens else None, tasks=tasks if by_task else None)


@given(rows, st.booleans())
def test_each_stream_has_mean_0_and_variance_1_or_is_silent(found: list[Row], by_tokens: bool) -> None:
    advantages, silent, _ = advantages_of(found, by_tokens, by_task=False)
    for stream in {row[0] for row in found}:
        times = [row[2] if by_tokens else 1 for row in found if row[0] is stream]
        of = [float(a) for row, a in zip(found, advantages, strict=True) if row[0] is stream]
        if stream in silent:
            assert not any(of)
        else:
            over = np.repeat(of, times)
            assert over.mean() == pytest.approx(0.0, abs=1e-5)
            assert over.var(ddof=1) == pytest.approx(1.0, rel=1e-4)


@given(rows, st.booleans())
def test_with_a_baseline_per_task_each_task_has_mean_0_and_each_stream_variance_1(
    found: list[Row], by_tokens: bool
) -> None:
    advantages, silent, _ = advantages_of(found, by_tokens, by_task=True)
    for stream in {row[0] for row in found if not row[0].proposes} - set(silent):
        squares, freedom = 0.0, 0
        for task in {row[3] for row in found}:
            own = [i for i, row in enumerate(found) if row[0] is stream and row[3] == task]
            over = np.repeat([float(advantages[i]) for i in own], [found[i][2] if by_tokens else 1 for i in own])
            if len(own) < 2:
                assert not over.any()
                continue
            assert over.mean() == pytest.approx(0.0, abs=1e-5)
            squares += float((over**2).sum())
            freedom += len(over) - 1
        assert squares / freedom == pytest.approx(1.0, rel=1e-4)


@given(rows, st.randoms(use_true_random=False), st.booleans(), st.booleans())
def test_order_does_not_matter(found: list[Row], rng: random.Random, by_tokens: bool, by_task: bool) -> None:
    order = list(range(len(found)))
    rng.shuffle(order)
    straight = advantages_of(found, by_tokens, by_task)
    shuffled = advantages_of([found[i] for i in order], by_tokens, by_task)
    np.testing.assert_allclose(shuffled.values, straight.values[order], atol=1e-5)
    assert shuffled[1:] == straight[1:]


@given(rows, st.integers(1, 9))
def test_tokens_do_not_matter_where_all_are_as_long(found: list[Row], length: int) -> None:
    equal = [(stream, reward, length, task) for stream, reward, _, task in found]
    over_tokens, over_sequences = advantages_of(equal, True, False), advantages_of(equal, False, False)
    for stream in {row[0] for row in found} - set(over_sequences.silent_streams):
        of = np.array([row[0] is stream for row in found])
        count = int(of.sum())
        # the means are the same; n − 1 of n sequences is not l·n − 1 of l·n tokens
        factor = np.sqrt((length * count - 1) / (length * (count - 1)))
        np.testing.assert_allclose(over_tokens.values[of], over_sequences.values[of] * factor, rtol=1e-4, atol=1e-6)
    assert over_tokens.silent_streams == over_sequences.silent_streams
