"""Cutting by sums of tokens and laying out one row, against hand-worked numbers and against padded rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import Config, load
from common.errors import ConfigError
from common.types import Group, Int32Array, MicroBatch
from learner.batch import micro_batch, shares
from learner.objective import filled
from learner.packing import EVEN, cut, packed_row
from learner.policy import pad, rows_of
from tests.learner.test_batch import batch, groups, tagged, trained


def ints(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)


def test_cuts_by_hand() -> None:
    # First fit takes two of at most 8: 5 + 3 and 4 + 2 + 1. Balanced: 5 + 2 and 4 + 3, and 1 to the cheaper.
    assert cut([5, 4, 3, 2, 1], ranks=1, tokens=8) == [[[1, 2, 4], [0, 3]]]
    # Three by first fit, so four for two ranks, one of which would else be idle.
    assert cut([6, 6, 6, 1], ranks=2, tokens=8) == [[[0], [2]], [[1], [3]]]
    assert cut([9, 2, 1], ranks=1, tokens=4) == [[[0], [1, 2]]]  # longer than the budget: alone
    assert cut([], ranks=2, tokens=8) == [[], []]
    assert cut([3], ranks=2, tokens=8) == [[[0]], [[]]]


def test_a_long_sequence_weighs_more_than_its_tokens() -> None:
    """One of EVEN tokens costs 2 · EVEN; 126 of 1/64 of it cost 126 · (1/64 + 1/64²) = 1.9995 · EVEN."""
    short = EVEN // 64
    ((one,), (other,)) = cut([EVEN] + [short] * 126, ranks=2, tokens=4 * EVEN)
    assert one == [0]
    assert len(other) == 126


def test_balance_may_need_more_micro_batches_than_first_fit() -> None:
    """7 + 3 and 5 + 5 fill two of 10; the cheapest that has room leaves none for the last, so there are three."""
    packs = cut([7, 5, 5, 3], ranks=1, tokens=10)[0]
    assert len(packs) == 2
    packs = cut([6, 5, 4, 3, 2], ranks=1, tokens=10)[0]  # 6 + 4, 5 + 3 + 2; balanced: 6 + 3, 5 + 4, no room for 2
    assert sorted(sum((6, 5, 4, 3, 2)[i] for i in pack) for pack in packs) == [6, 7, 7]


def test_rows_by_hand() -> None:
    row = packed_row(ints(5, 6, 10, 11, 7, 20, 8, 9, 30), ints(2, 1, 2), ints(2, 1, 1))
    assert row.input_ids.tolist() == [[5, 6, 10, 7, 8, 9]]
    assert row.position_ids.tolist() == [[0, 1, 2, 0, 0, 1]]
    assert row.positions.tolist() == [1, 2, 3, 5]
    assert row.targets.tolist() == [10, 11, 20, 30]
    assert row.bounds.tolist() == [0, 3, 4, 6]
    assert row.bounds.dtype == np.int32  # the kernel takes no other
    assert row.longest == 3


def test_what_cannot_be_laid_out_is_refused() -> None:
    with pytest.raises(ValueError, match="prompt token in every sequence"):
        packed_row(ints(1, 2), ints(0), ints(2))
    with pytest.raises(ValueError, match="at least one answer token"):
        packed_row(ints(1, 2), ints(2), ints(0))
    with pytest.raises(ValueError, match="add up to 3"):
        packed_row(ints(1, 2), ints(1), ints(2))
    with pytest.raises(ValueError, match="predicts nothing"):
        packed_row(ints(1, 2, 3), ints(1, 1), ints(0, 1))


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)), min_size=1, max_size=12))
def test_a_token_stands_behind_what_it_stands_behind_in_a_padded_row(lengths: list[tuple[int, int]]) -> None:
    prompts, answers = (np.array(column, np.int32) for column in zip(*lengths, strict=True))
    tokens = np.arange(1, 1 + prompts.sum() + answers.sum(), dtype=np.int32)
    packed, padded = packed_row(tokens, prompts, answers), pad(tokens, prompts, answers)
    assert packed.targets.tolist() == padded.targets.tolist()
    width = padded.input_ids.shape[1]
    for here, there in zip(packed.positions.tolist(), padded.positions.tolist(), strict=True):
        sequence = int(np.searchsorted(packed.bounds, here, side="right")) - 1
        assert sequence == there // width
        seen = packed.input_ids[0, packed.bounds[sequence] : here + 1]
        assert seen.tolist() == padded.input_ids[sequence, : there % width + 1].tolist()
        assert packed.position_ids[0, here] == there % width


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 5), st.integers(1, 100))
def test_cuts_lose_nothing_keep_the_budget_and_leave_no_rank_idle(lengths: list[int], ranks: int, tokens: int) -> None:
    of_ranks = cut(lengths, ranks, tokens)
    assert len({len(packs) for packs in of_ranks}) == 1
    assert sorted(i for packs in of_ranks for pack in packs for i in pack) == list(range(len(lengths)))
    assert all(sum(lengths[i] for i in p) <= tokens or len(p) == 1 for packs in of_ranks for p in packs)
    assert sum(any(packs) for packs in of_ranks) == min(len(lengths), ranks)
    assert cut(lengths, ranks, tokens) == of_ranks


@pytest.mark.parametrize("ranks", [1, 2, 8])
def test_realistic_lengths_fill_micro_batches_and_balance_ranks(ranks: int) -> None:
    """3,072 sequences of about 300 to 14,000 tokens at 16k tokens, about a step of the paper."""
    random = np.random.default_rng(0)
    lengths = np.clip(random.lognormal(7.0, 0.8, 3072).astype(int), 300, 14000).tolist()
    of_ranks = cut(lengths, ranks, 16384)
    cost = [[sum(lengths[i] + lengths[i] ** 2 / EVEN for i in pack) for pack in packs] for packs in of_ranks]
    totals = [sum(costs) for costs in cost]
    assert max(totals) / (sum(totals) / ranks) < 1.005
    assert sum(map(len, of_ranks)) <= -(-sum(lengths) // 16384) + ranks + 2
    assert min(min(costs) / max(costs) for costs in zip(*cost, strict=True)) > 0.95  # of those trained at one time


@given(groups, st.integers(1, 4), st.integers(1, 200), st.integers(1, 3))
def test_packed_shares_hold_every_sequence_once(
    content: list[Group], ranks: int, tokens: int, minibatches: int
) -> None:
    rows = trained(content)
    dealt = shares(0, rows, ranks, tokens, minibatches, packing=True)
    micros = [micro for share in dealt for micro in share.micro_batches]
    assert Counter(t for micro in micros for t in tagged(micro)) == Counter(tagged(micro_batch([rows])))
    assert all(len(micro.tokens) <= tokens or len(micro.answer_lengths) == 1 for micro in micros)
    assert all(micro.rows.tolist() == [len(micro.answer_lengths)] * bool(len(micro.tokens)) for micro in micros)


def waste(micros: list[MicroBatch], *, packing: bool) -> float:
    laid = sum(rows_of(micro, packing=packing).input_ids.size for micro in micros)
    return 1 - sum(filled(micro, packing=packing) for micro in micros) / laid


def laid(tokens: Int32Array, prompts: Int32Array, answers: Int32Array, rows: Int32Array) -> MicroBatch:
    whole = micro_batch([trained(batch())[:3]])
    return replace(whole, tokens=tokens, prompt_lengths=prompts, answer_lengths=answers, rows=rows)


def test_padding_by_hand() -> None:
    """Sequences of 7, 4 and 2 inputs: padded to 3 · 7 positions, of which 13 belong to one."""
    micro = laid(np.arange(16, dtype=np.int32), ints(5, 1, 1), ints(3, 4, 2), ints(1, 1, 1))
    assert waste([micro], packing=False) == pytest.approx(1 - 13 / 21)
    assert waste([micro], packing=True) == 0.0


def test_padding_does_not_count_a_shared_prompt_twice() -> None:
    """A prompt of 4 with answers of 3 and 2, and one of 1 with an answer of 4: rows of 4 + 2 + 1 and 1 + 3."""
    tokens = ints(1, 1, 1, 1, 2, 3, 4, 1, 1, 1, 1, 5, 6, 9, 7, 8, 9, 9)
    assert waste([laid(tokens, ints(4, 4, 1), ints(3, 2, 4), ints(2, 1))], packing=False) == pytest.approx(1 - 11 / 14)


@given(groups, st.integers(1, 3), st.integers(1, 200))
def test_a_packed_batch_has_no_padding(content: list[Group], ranks: int, tokens: int) -> None:
    micros = [m for share in shares(0, trained(content), ranks, tokens, packing=True) for m in share.micro_batches]
    assert all(waste([micro], packing=True) == 0.0 for micro in micros if len(micro.tokens))


def test_packing_and_shared_prompts_exclude_each_other() -> None:
    assert isinstance(load("tiny.yaml", ["learner.packing=true"]), Config)
    with pytest.raises(ConfigError, match=r"learner\.packing and learner\.share_prompts exclude"):
        load("tiny.yaml", ["learner.packing=true", "learner.share_prompts=true"])
