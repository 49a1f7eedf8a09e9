"""From groups to shares: nothing is lost, nothing twice, and the gradient cannot tell how it was packed."""

from __future__ import annotations

import json
import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import AlgorithmConfig
from common.types import STREAMS, Group, Kind, MicroBatch, Span
from learner.batch import TrainSequence, deal, micro_batch, sequences, shares, staleness
from tests.fakes.groups import a_group, a_sample

P, S = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION


def trained(content: list[Group], **settings: Any) -> list[TrainSequence]:
    return sequences(0, content, AlgorithmConfig(**settings), seed=0).rows


def batch() -> list[Group]:
    """Two proposals with 2 and 4 tokens; answers with 1, 2 and 3, one more that is not trained, one empty."""
    return [
        a_group(0, P, [a_sample(P, length=2), a_sample(S, length=1, prompt=1)]),
        a_group(8, P, [a_sample(P, length=4), a_sample(S, length=9, prompt=1, trainable=False)]),
        a_group(3, S, [a_sample(S, length=2), a_sample(S, length=3), a_sample(S, length=0)]),
    ]


def test_only_trainable_tokens_count_and_the_order_is_that_of_leases_and_samples() -> None:
    rows = trained(batch())
    assert [(row.sample.stream, len(row.sample.tokens)) for row in rows] == [(P, 2), (S, 1), (P, 4), (S, 2), (S, 3)]


def test_weights_by_hand() -> None:
    rows = trained(batch())
    assert [row.weight for row in rows] == pytest.approx([1 / 36] * 5)  # six tokens in each stream
    rows = trained(batch()[:1])
    assert [row.weight for row in rows] == pytest.approx([1 / 12, 1 / 6])
    rows = trained(batch()[:1], stream_weight="tokens")
    assert [row.weight for row in rows] == pytest.approx([1 / 3, 1 / 3])


def test_with_error_deduction_a_stream_weighs_an_eighth() -> None:
    group = a_group(0, Kind.PROPOSE_ERROR, [a_sample(Kind.PROPOSE_ERROR, length=2), a_sample(Kind.SOLVE_ERROR)])
    assert [row.weight for row in trained([group], error=True)] == [1 / 8 / 2, 1 / 8 / 3]
    assert [row.weight for row in trained(batch())] == [1 / 6 / 6] * 5


def test_an_answer_is_trained_after_its_own_prompt() -> None:
    (micro,) = shares(0, trained(batch()[:1]), ranks=1, tokens=100)[0].micro_batches
    assert micro.tokens.tolist() == [7, 8, 0, 1, 9, 9, 0]
    assert micro.prompt_lengths.tolist() == [2, 2]
    assert micro.answer_lengths.tolist() == [2, 1]


def test_silent_streams_are_named_and_have_no_advantage() -> None:
    found = sequences(0, batch(), AlgorithmConfig(), seed=0)
    assert found.silent_streams == (P, S)
    assert {row.advantage for row in found.rows} == {0.0}


def rewarded(lease: int, kind: Kind, *rewards: float, lengths: tuple[int, ...] = (1, 1, 1, 1)) -> Group:
    return a_group(lease, kind, [a_sample(kind, length=n, reward=r) for n, r in zip(lengths, rewards, strict=False)])


def test_settings_choose_how_advantages_are_made() -> None:
    def advantages(content: list[Group], **settings: Any) -> list[float]:
        return [row.advantage for row in trained(content, **settings)]

    long = [rewarded(0, S, 1.0, -1.0, -1.0, -1.0, lengths=(3, 1, 1, 1))]
    root = math.sqrt(5 / 6)  # tests/learner/test_advantage.py
    assert advantages(long) == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert advantages(long, whiten="tokens") == pytest.approx([root, -root, -root, -root])
    two = [rewarded(0, S, 1.0, 1.0, -0.5), rewarded(8, S, -0.5, -0.5, 1.0)]
    unit = 0.5 / math.sqrt(0.75)
    assert advantages(two, baseline="group") == pytest.approx([unit, unit, -2 * unit, -unit, -unit, 2 * unit])
    assert advantages(two)[0] == pytest.approx(advantages(two)[5])
    alike = [rewarded(0, S, 1.0, 1.0), rewarded(8, S, -0.5, 1.0), rewarded(16, S, -0.5)]
    silent_tasks = sequences(0, alike, AlgorithmConfig(baseline="group"), seed=0).silent_tasks
    assert json.dumps(silent_tasks) == "2"  # it is a metric


def test_a_control_trains_the_same_sequences_on_rewards_dealt_by_seed_and_step() -> None:
    content = [rewarded(8 * i, S, *[float(i % 3)] * 4) for i in range(9)]
    true = trained(content)
    control = AlgorithmConfig(shuffle_rewards=True)
    dealt = {(seed, step): sequences(step, content, control, seed).rows for seed in (0, 1) for step in (0, 1)}
    assert all([r.sample for r in rows] == [r.sample for r in true] for rows in dealt.values())
    assert all(sorted(r.advantage for r in rows) == sorted(r.advantage for r in true) for rows in dealt.values())
    assert len({tuple(r.advantage for r in rows) for rows in (true, *dealt.values())}) == 5
    again = sequences(1, content, control, seed=1).rows
    assert [r.advantage for r in again] == [r.advantage for r in dealt[1, 1]]


def test_staleness_follows_the_spans() -> None:
    sample = a_sample(S, length=5, spans=[Span(3, 0, 2), Span(4, 2, 5)])
    assert staleness(sample, step=5).tolist() == [2, 2, 1, 1, 1]
    row = TrainSequence(np.array([1], np.int32), sample, advantage=0.5, weight=0.25, step=5)
    micro = micro_batch([[row], [row]])
    assert micro.staleness.tolist() == [2, 2, 1, 1, 1] * 2
    assert (micro.advantages.tolist(), micro.weights.tolist()) == ([0.5, 0.5], [0.25, 0.25])


def test_an_empty_micro_batch_has_the_dtypes_of_a_full_one() -> None:
    full = micro_batch([[TrainSequence(np.array([1], np.int32), a_sample(S), 0.0, 0.0, 0)]])
    empty = micro_batch([])
    for name in MicroBatch.__dataclass_fields__:
        assert getattr(empty, name).dtype == getattr(full, name).dtype
        assert getattr(empty, name).shape == (0,)


def test_ranks_without_work_get_empty_micro_batches() -> None:
    rows = trained(batch()[:1])
    one, two, three = shares(7, rows, ranks=3, tokens=100)
    assert [len(share.micro_batches) for share in (one, two, three)] == [1, 1, 1]
    assert sum(len(m.answer_lengths) for share in (one, two, three) for m in share.micro_batches) == 2
    assert {share.step for share in (one, two, three)} == {7}


def test_a_batch_without_sequences_is_no_micro_batch() -> None:
    assert [share.micro_batches for share in shares(0, [], ranks=2, tokens=100)] == [(), ()]


def test_one_long_sequence_and_many_short_ones_keep_to_the_budget_on_many_ranks() -> None:
    long, short = a_group(0, S, [a_sample(S, length=98)]), a_group(8, S, [a_sample(S, length=1)] * 30)
    rows = trained([long, short])
    for share in shares(0, rows, ranks=8, tokens=100):
        for micro in share.micro_batches:
            assert padded(micro) <= 100


def padded(micro: MicroBatch) -> int:
    lengths = micro.prompt_lengths + micro.answer_lengths
    return len(lengths) * int(lengths.max(initial=0))


def tagged(micro: MicroBatch) -> list[tuple[int, ...]]:
    """Every sequence of `micro` as (its tokens, weight and advantage in units that hash)."""
    ends = np.cumsum(micro.prompt_lengths + micro.answer_lengths)
    starts = ends - micro.prompt_lengths - micro.answer_lengths
    assert ends[-1:].sum() == len(micro.tokens)
    assert micro.answer_lengths.sum() == len(micro.logprobs) == len(micro.staleness)
    return [(*micro.tokens[a:b].tolist(), int(w * 1e6)) for a, b, w in zip(starts, ends, micro.weights, strict=True)]


groups = st.lists(
    st.lists(st.tuples(st.sampled_from(STREAMS), st.integers(1, 40), st.sampled_from([0.0, 1.0])), max_size=6),
    max_size=12,
).map(
    lambda contents: [
        a_group(i, S, [a_sample(stream, length=n, reward=r) for stream, n, r in samples])
        for i, samples in enumerate(contents)
    ]
)


@given(groups, st.integers(1, 5), st.integers(1, 200))
def test_packing_loses_nothing_and_fits(content: list[Group], ranks: int, tokens: int) -> None:
    rows = trained(content)
    dealt = shares(0, rows, ranks, tokens)
    assert len(dealt) == ranks
    assert len({len(share.micro_batches) for share in dealt}) == 1
    micros = [micro for share in dealt for micro in share.micro_batches]
    assert all(padded(micro) <= tokens or len(micro.answer_lengths) == 1 for micro in micros)
    straight = micro_batch([rows])
    assert Counter(t for micro in micros for t in tagged(micro)) == Counter(tagged(straight))


@given(groups, st.integers(1, 4), st.integers(1, 200))
def test_each_stream_weighs_a_sixth_however_it_is_packed(content: list[Group], ranks: int, tokens: int) -> None:
    rows = trained(content)
    present = {row.sample.stream for row in rows}
    total = sum(
        float((micro.weights.astype(np.float64) * micro.answer_lengths).sum())
        for share in shares(0, rows, ranks, tokens)
        for micro in share.micro_batches
    )
    assert total == pytest.approx(len(present) / 6, rel=1e-5)
    for stream in present:
        weight = sum(row.weight * len(row.sample.tokens) for row in rows if row.sample.stream is stream)
        assert weight == pytest.approx(1 / 6)


@given(groups, st.integers(2, 5), st.integers(1, 200))
def test_no_rank_idles_while_there_are_sequences_for_it(content: list[Group], ranks: int, tokens: int) -> None:
    rows = trained(content)
    busy = [sum(len(m.answer_lengths) > 0 for m in share.micro_batches) for share in shares(0, rows, ranks, tokens)]
    assert sum(count > 0 for count in busy) == min(len(rows), ranks)


@given(groups, st.integers(1, 4), st.integers(1, 200), st.integers(2, 5))
def test_minibatches_hold_every_sequence_once_with_its_weight(
    content: list[Group], ranks: int, tokens: int, minibatches: int
) -> None:
    rows = trained(content)
    dealt = shares(0, rows, ranks, tokens, minibatches)
    assert len({share.updates for share in dealt}) == 1
    assert len({len(share.micro_batches) for share in dealt}) == 1
    updates = dealt[0].updates
    assert len(updates) == (min(minibatches, len(rows)) if len(rows) > 1 else 0)
    assert not updates or sum(updates) == len(dealt[0].micro_batches)
    found = Counter(t for share in dealt for micro in share.micro_batches for t in tagged(micro))
    assert found == Counter(tagged(micro_batch([rows])))
    at = 0
    for count in updates:
        of_update = [m for share in dealt for m in share.micro_batches[at : at + count]]
        assert sum(len(m.answer_lengths) for m in of_update) >= len(rows) // len(updates) > 0
        at += count


@given(groups, st.integers(1, 5))
def test_parts_are_dealt_alike_in_all_and_of_each_stream(content: list[Group], parts: int) -> None:
    rows = trained(content)
    dealt = deal(rows, parts)
    assert sorted(map(id, rows)) == sorted(id(row) for part in dealt for row in part)
    for stream in {None, *(row.sample.stream for row in rows)}:
        counts = [sum(stream in (None, row.sample.stream) for row in part) for part in dealt]
        assert max(counts) - min(counts) <= 1


def test_one_minibatch_is_the_batch_as_it_was() -> None:
    rows = trained(batch())
    assert deal(rows, 1) == [rows]
    assert shares(0, rows, ranks=2, tokens=10)[0].updates == ()


def test_the_answers_to_a_task_are_spread_over_minibatches() -> None:
    rows = trained([a_group(0, S, [a_sample(S, length=n) for n in (1, 2, 3, 4)]), a_group(8, S, [a_sample(S)] * 2)])
    assert [[len(row.sample.tokens) for row in part] for part in deal(rows, 2)] == [[1, 3, 3], [2, 4, 3]]
