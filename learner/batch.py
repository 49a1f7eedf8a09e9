"""From a batch of groups to what each trainer rank trains.

The loss of a batch is Σ_s w_s · (token losses of stream s) / (tokens of s in the whole batch) over the streams s.
Every sequence carries its weight w_s / T_s, so the gradient does not depend on how sequences are packed, on the number
of micro-batches or on the number of ranks (up to floating-point order).

w_s is 1/6, or 1/8 with error deduction, also where a stream has no sequence in a batch, or no quota (answers that
measure proposals are trained all the same): what a stream weighs must not jump because another one happened to be
empty. Where streams are left out for a whole run that only scales the loss, which
AdamW divides out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from common.config import AlgorithmConfig
from common.seeds import derive
from common.types import Group, Int32Array, Kind, MicroBatch, Sample, Share
from learner.advantage import shuffle, whiten
from learner.packing import cut
from learner.prompt_rows import division


@dataclass(frozen=True, slots=True, eq=False)
class TrainSequence:
    """A trainable sample with its prompt, advantage and weight per token."""

    prompt: Int32Array
    sample: Sample
    advantage: float
    weight: float
    step: int

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.sample.tokens)


class Trainable(NamedTuple):
    """What a batch trains, in lease order, and how much of it carries no signal (learner/advantage.py)."""

    rows: list[TrainSequence]
    silent_streams: tuple[Kind, ...]
    silent_tasks: int


def sequences(step: int, batch: Sequence[Group], algorithm: AlgorithmConfig, seed: int) -> Trainable:
    """`seed`: of the run. Equal arguments give equal sequences, so a batch may be asked for again."""
    found = [
        (number, group.prompts[sample.prompt], sample)
        for number, group in enumerate(batch)
        for sample in group.samples
        if sample.trainable and len(sample.tokens)
    ]
    streams, rewards = [s.stream for _, _, s in found], [s.reward for _, _, s in found]
    if algorithm.shuffle_rewards:
        rewards = shuffle(streams, rewards, derive(seed, "shuffled rewards", step))
    advantages = whiten(
        streams,
        rewards,
        tokens=[len(s.tokens) for _, _, s in found] if algorithm.whiten == "tokens" else None,
        tasks=[number for number, _, _ in found] if algorithm.baseline == "group" else None,
    )
    tokens = Counter[Kind]()
    for _, _, sample in found:
        tokens[sample.stream] += len(sample.tokens)
    total = sum(tokens.values())
    equal = algorithm.stream_weight == "equal"
    parts = len(algorithm.streams)
    weight = {stream: 1.0 / parts / count if equal else 1.0 / total for stream, count in tokens.items()}
    rows = [
        TrainSequence(prompt, sample, float(advantage), weight[sample.stream], step)
        for (_, prompt, sample), advantage in zip(found, advantages.values, strict=True)
    ]
    return Trainable(rows, advantages.silent_streams, advantages.silent_tasks)


def shares(
    step: int,
    rows: Sequence[TrainSequence],
    ranks: int,
    tokens: int,
    minibatches: int = 1,
    share_prompts: bool = False,
    packing: bool = False,
) -> list[Share]:
    """One share per rank: micro-batches of at most `tokens` padded tokens, of like lengths, as many for each rank.

    A sequence longer than `tokens` is a micro-batch of its own. `minibatches`: optimiser steps, fewer if there are
    fewer sequences; each sequence is in one of them, with the weight and advantage it has in the whole batch.
    `share_prompts`: sequences that will stand in one row (learner/prompt_rows.py) stay together, and count as one.
    `packing`: a micro-batch is one row of at most `tokens` tokens, none of them padding (learner/packing.py).
    """
    limit = tokens if share_prompts else 0
    parts = [
        _packed(part, ranks, tokens) if packing else _padded(_rows(part, limit), ranks, tokens)
        for part in deal(rows, minibatches)
    ]
    updates = tuple(len(part[0]) for part in parts) if len(parts) > 1 else ()
    return [Share(step, tuple(batch for part in parts for batch in part[rank]), updates) for rank in range(ranks)]


def deal(rows: Sequence[TrainSequence], parts: int) -> list[list[TrainSequence]]:
    """Stream by stream, in lease order, one to each part in turn; no part is empty unless there are no rows.

    The counts of two parts, in all and of each stream, differ by one at most, and the answers to one task are spread.
    """
    order = sorted(range(len(rows)), key=lambda i: (rows[i].sample.stream, i))
    parts = max(1, min(parts, len(rows)))
    return [[rows[i] for i in sorted(order[part::parts])] for part in range(parts)]


def _rows(rows: Sequence[TrainSequence], limit: int) -> list[list[TrainSequence]]:
    """The sequences of each row of the model's input; with `limit` 0 each has its own."""
    counts = division([r.prompt for r in rows], [len(r.sample.tokens) for r in rows], limit)
    return [list(rows[end - count : end]) for count, end in zip(counts, accumulate(counts), strict=True)]


def _width(row: Sequence[TrainSequence]) -> int:
    return row[0].length + sum(len(r.sample.tokens) for r in row[1:])


def _packed(rows: Sequence[TrainSequence], ranks: int, tokens: int) -> list[list[MicroBatch]]:
    """Micro-batches of each rank, equally many, of one row each."""
    of_ranks = cut([row.length for row in rows], ranks, tokens)
    return [[micro_batch([[rows[i] for i in pack]] if pack else []) for pack in packs] for packs in of_ranks]


def _padded(rows: Sequence[list[TrainSequence]], ranks: int, tokens: int) -> list[list[MicroBatch]]:
    """Micro-batches of each rank, equally many, of rows that are padded to one width."""
    by_width = sorted(range(len(rows)), key=lambda i: (-_width(rows[i]), i))
    packs: list[list[list[TrainSequence]]] = []
    for index in by_width:
        row = rows[index]
        if packs and (len(packs[-1]) + 1) * _width(packs[-1][0]) <= tokens:
            packs[-1].append(row)
        else:
            packs.append([row])
    while len(packs) < ranks and any(len(pack) > 1 for pack in packs):
        _halve_largest(packs)
    per_rank: list[list[MicroBatch]] = [[] for _ in range(ranks)]
    loads = [0] * ranks
    rounds = -(-len(packs) // ranks)
    for pack in packs:
        rank = min((r for r in range(ranks) if len(per_rank[r]) < rounds), key=lambda r: (loads[r], r))
        per_rank[rank].append(micro_batch(pack))
        loads[rank] += len(pack) * _width(pack[0])
    for batches in per_rank:
        batches += [micro_batch([])] * (rounds - len(batches))
    return per_rank


def _halve_largest(packs: list[list[list[TrainSequence]]]) -> None:
    """Halves keep to the token budget, which rows dealt anew would not: one may be as long as a pack of others."""
    largest = max(range(len(packs)), key=lambda i: len(packs[i]))
    pack = packs.pop(largest)
    packs += [pack[0::2], pack[1::2]]


def micro_batch(rows: Sequence[Sequence[TrainSequence]]) -> MicroBatch:
    """Concatenate the sequences of all rows; an empty one is what a rank trains to keep step with the others."""
    sequences = [sequence for row in rows for sequence in row]
    return MicroBatch(
        tokens=_join([part for s in sequences for part in (s.prompt, s.sample.tokens)], np.int32),
        prompt_lengths=np.asarray([len(s.prompt) for s in sequences], dtype=np.int32),
        answer_lengths=np.asarray([len(s.sample.tokens) for s in sequences], dtype=np.int32),
        logprobs=_join([s.sample.logprobs for s in sequences], np.float32),
        staleness=_join([staleness(s.sample, s.step) for s in sequences], np.int32),
        advantages=np.asarray([s.advantage for s in sequences], dtype=np.float32),
        weights=np.asarray([s.weight for s in sequences], dtype=np.float32),
        rows=np.asarray([len(row) for row in rows], dtype=np.int32),
    )


def staleness(sample: Sample, step: int) -> Int32Array:
    """[T] int32: the step that trains each token minus the version that sampled it."""
    out = np.zeros(len(sample.tokens), dtype=np.int32)
    for span in sample.spans:
        out[span.start : span.end] = step - span.version
    return out


def _join(parts: Sequence[np.ndarray], dtype: type) -> np.ndarray:
    return np.concatenate(parts).astype(dtype, copy=False) if parts else np.zeros(0, dtype=dtype)
