"""Rows that share a prompt, against ones written down by hand and against rows of their own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.types import STREAMS, Group, Kind
from learner.batch import TrainSequence, shares
from learner.policy import pad
from learner.prompt_rows import division, shared_rows
from tests.fakes.groups import a_group, a_sample
from tests.learner.test_batch import groups, tagged, trained


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)


def test_division_by_hand() -> None:
    a, b = ints(1, 2), ints(1, 3)
    assert division([a, a, b, a], [3, 3, 3, 3], limit=100) == [2, 1, 1]
    assert division([a] * 5, [3] * 5, limit=8) == [2, 2, 1]  # 2 + 3 + 3
    assert division([a] * 3, [9, 1, 1], limit=8) == [1, 2]  # the first is longer than that alone
    assert division([a, a], [3, 3], limit=0) == [1, 1]
    assert division([], [], limit=8) == []


def test_rows_by_hand() -> None:
    rows = shared_rows(ints(5, 6, 10, 11, 5, 6, 20, 21, 22, 7, 30), ints(2, 2, 1), ints(2, 3, 1), ints(2, 1))
    assert rows.input_ids.tolist() == [[5, 6, 10, 20, 21], [7, 0, 0, 0, 0]]
    assert rows.position_ids.tolist() == [[0, 1, 2, 2, 3], [0, 0, 0, 0, 0]]
    assert rows.positions.tolist() == [1, 2, 1, 3, 4, 5]
    assert rows.targets.tolist() == [10, 11, 20, 21, 22, 30]
    assert rows.visible[0, 0].astype(int).tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 0, 1, 0],
        [1, 1, 0, 1, 1],
    ]


def test_what_cannot_be_laid_out_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt token and an answer token"):
        shared_rows(ints(1, 2), ints(0), ints(2), ints(1))
    with pytest.raises(ValueError, match="prompt token and an answer token"):
        shared_rows(ints(1, 2), ints(2), ints(0), ints(1))
    with pytest.raises(ValueError, match="equal prompts"):
        shared_rows(ints(1, 7, 2, 7), ints(1, 1), ints(1, 1), ints(2))


@given(
    st.lists(st.tuples(st.integers(1, 3), st.integers(1, 6)), min_size=1, max_size=12),
    st.integers(1, 30),
)
def test_a_token_sees_what_it_sees_in_a_row_of_its_own(drawn: list[tuple[int, int]], limit: int) -> None:
    prompts = [ints(*range(100, 100 + length)) for length, _ in drawn]
    answers = [ints(*range(1000 * n, 1000 * n + length)) for n, (_, length) in enumerate(drawn, 1)]
    tokens = np.concatenate([part for pair in zip(prompts, answers, strict=True) for part in pair])
    lengths = np.array([len(p) for p in prompts], np.int32), np.array([len(a) for a in answers], np.int32)
    counts = ints(*division(prompts, [len(a) for a in answers], limit))
    shared, alone = shared_rows(tokens, *lengths, counts), pad(tokens, *lengths)
    assert shared.targets.tolist() == alone.targets.tolist()
    width = shared.input_ids.shape[1]
    for there, here in zip(shared.positions.tolist(), alone.positions.tolist(), strict=True):
        row, column = divmod(there, width)
        seen = np.flatnonzero(shared.visible[row, 0, column])
        order = np.argsort(shared.position_ids[row, seen])
        begin = here - here % alone.input_ids.shape[1]
        assert shared.input_ids[row, seen[order]].tolist() == alone.input_ids.flatten()[begin : here + 1].tolist()
        assert sorted(shared.position_ids[row, seen].tolist()) == list(range(here - begin + 1))


@given(groups, st.integers(1, 4), st.integers(1, 200))
def test_sharing_loses_nothing(content: list[Group], ranks: int, tokens: int) -> None:
    rows = trained(content)
    micros = [m for share in shares(0, rows, ranks, tokens, share_prompts=True) for m in share.micro_batches]
    whole = [tag for share in shares(0, rows, 1, tokens) for m in share.micro_batches for tag in tagged(m)]
    assert sorted(tag for m in micros for tag in tagged(m)) == sorted(whole)


@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 30)), min_size=1, max_size=30),
    st.integers(1, 3),
    st.integers(1, 150),
)
def test_what_goes_through_the_model_keeps_to_the_budget(drawn: list[tuple[int, int]], ranks: int, tokens: int) -> None:
    """Few distinct prompts, so that rows with equal ones become neighbours when rows are sorted by width."""
    rows = [TrainSequence(ints(prompt, 9), a_sample(STREAMS[0], length=n), 0.0, 0.0, 0) for prompt, n in drawn]
    for share in shares(0, rows, ranks, tokens, share_prompts=True):
        for m in share.micro_batches:
            if len(m.answer_lengths) > 1:
                laid = shared_rows(m.tokens, m.prompt_lengths, m.answer_lengths, m.rows)
                assert laid.input_ids.size <= tokens


def test_rows_that_sorting_makes_neighbours_stay_apart() -> None:
    """Eight proposals to one prompt, each followed by an answer to its own task: 16 rows of 100 or 99 tokens."""
    rows: list[TrainSequence] = []
    for group in range(8):
        for prompt, length in ((1, 90), (100 + group, 89)):
            rows.append(TrainSequence(ints(*[prompt] * 10), a_sample(STREAMS[0], length=length), 0.0, 0.0, 0))
    (micro,) = shares(0, rows, 1, tokens=1600, share_prompts=True)[0].micro_batches
    assert micro.rows.tolist() == [1] * 16
    laid = shared_rows(micro.tokens, micro.prompt_lengths, micro.answer_lengths, micro.rows)
    assert laid.input_ids.shape == (16, 99)


def test_answers_to_one_prompt_are_packed_as_one_row() -> None:
    content = [a_group(i, Kind.SOLVE_DEDUCTION, [a_sample(STREAMS[-1], length=4) for _ in range(3)]) for i in range(2)]
    rows = trained(content)
    (alone,) = shares(0, rows, 1, tokens=14)
    (shared,) = shares(0, rows, 1, tokens=14, share_prompts=True)
    assert [len(m.answer_lengths) for m in alone.micro_batches] == [2, 2, 2]  # rows of 6
    assert [len(m.answer_lengths) for m in shared.micro_batches] == [3, 3]  # rows of 2 + 3 · 4
