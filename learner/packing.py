"""Micro-batches of one row (`learner.packing`): sequences end to end, so that nothing is computed for padding.

    a a a b b c c c c        sequences a, b and c; positions 0 1 2 0 1 0 1 2 3, bounds 0 3 5 9

Micro-batches are cut by the sum of their tokens. Which sequences share one is chosen so that ranks cost alike, and the
micro-batches of a rank. A sequence of n tokens is taken to cost n + n² / EVEN, since attention grows with its square.
Invariant: equal lengths give equal cuts, so a batch may be cut again.
Not covered: sequences that share a prompt (learner/prompt_rows.py); attention has to keep to the bounds
(learner/attention.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.types import Int32Array

Int64 = npt.NDArray[np.int64]

# Tokens in a sequence whose attention costs as much as all else: parameters / (layers · hidden size), which is 23k, 42k
# and 76k for Qwen2.5 of 0.5B, 3B and 7B. Only how well loads balance depends on it.
EVEN = 1 << 15


class PackedRow(NamedTuple):
    """A row of N positions, with A answer tokens in the order of the S sequences."""

    input_ids: Int64  # [1, N]
    positions: Int64  # [A], index into the row that predicts answer token a
    targets: Int64  # [A], the answer tokens
    position_ids: Int64  # [1, N], from 0 in each sequence
    bounds: Int32Array  # [S + 1], where each sequence begins, and N
    longest: int  # positions of the longest sequence


def cut(lengths: Sequence[int], ranks: int, tokens: int) -> list[list[list[int]]]:
    """Of each rank its micro-batches, as indices into `lengths`: as many for each rank, some perhaps empty.

    The lengths of a micro-batch sum to `tokens` at most, unless it is one longer sequence. There are no more
    micro-batches than it takes to cut by first fit, rounded up to a multiple of `ranks`, unless balance fails in them.
    The first micro-batches of a rank cost most, so those that ranks train at one time cost alike.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    cost = [n + n * n / EVEN for n in lengths]
    fewest = -(-_first_fit([lengths[i] for i in order], tokens) // ranks)
    rounds, packs = next(
        (rounds, found)
        for rounds in count(fewest)
        if (found := _balanced(order, lengths, cost, rounds * ranks, tokens)) is not None
    )
    of_rank: list[list[list[int]]] = [[] for _ in range(ranks)]
    loads = [0.0] * ranks
    packs.sort(key=lambda pack: -sum(cost[i] for i in pack))
    for pack in packs:
        rank = min((r for r in range(ranks) if len(of_rank[r]) < rounds), key=lambda r: (loads[r], r))
        of_rank[rank].append(pack)
        loads[rank] += sum(cost[i] for i in pack)
    return of_rank


def packed_row(tokens: Int32Array, prompt_lengths: Int32Array, answer_lengths: Int32Array) -> PackedRow:
    """Of concatenated prompt + answer sequences; the last token of each is only a target.

    ValueError if there is no answer token, or a sequence has no prompt token or only one token.
    """
    if len(prompt_lengths) == 0 or min(prompt_lengths) < 1 or answer_lengths.sum() < 1:
        raise ValueError("a micro-batch needs a prompt token in every sequence and at least one answer token")
    lengths = (prompt_lengths + answer_lengths).astype(np.int64)
    if lengths.sum() != len(tokens):
        raise ValueError(f"lengths add up to {lengths.sum()} tokens, but there are {len(tokens)}")
    if lengths.min() < 2:
        raise ValueError("a sequence of one token predicts nothing")
    ends = np.cumsum(lengths)
    column = np.arange(len(tokens)) - np.repeat(ends - lengths, lengths)
    bounds = np.concatenate([[0], np.cumsum(lengths - 1)])
    begin = np.repeat(bounds[:-1], lengths)
    shown, answer = column < np.repeat(lengths - 1, lengths), column >= np.repeat(prompt_lengths, lengths)
    return PackedRow(
        input_ids=tokens[shown].astype(np.int64)[None],
        positions=(begin + column - 1)[answer],
        targets=tokens[answer].astype(np.int64),
        position_ids=column[shown][None],
        bounds=bounds.astype(np.int32),
        longest=int(lengths.max()) - 1,
    )


def _first_fit(lengths: Sequence[int], tokens: int) -> int:
    """How many packs hold these lengths, longest first."""
    filled: list[int] = []
    for length in lengths:
        at = next((i for i, held in enumerate(filled) if held + length <= tokens), None)
        if at is None:
            filled.append(length)
        else:
            filled[at] += length
    return len(filled)


def _balanced(
    order: Sequence[int], lengths: Sequence[int], cost: Sequence[float], packs: int, tokens: int
) -> list[list[int]] | None:
    """Each sequence into the cheapest pack that has room; None if one finds no room."""
    found: list[list[int]] = [[] for _ in range(packs)]
    filled, spent = [0] * packs, [0.0] * packs
    for i in order:
        fitting = [p for p in range(packs) if not found[p] or filled[p] + lengths[i] <= tokens]
        if not fitting:
            return None
        pack = min(fitting, key=lambda p: spent[p])
        found[pack].append(i)
        filled[pack] += lengths[i]
        spent[pack] += cost[i]
    return found
