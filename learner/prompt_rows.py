"""Rows of a micro-batch in which a prompt stands once, and all the answers to it behind it (`learner.share_prompts`).

    a a a b b c c c        prompt a, answers b and c: c sees a and c, not b, and its positions go on from those of a

What a token sees and where it stands are those it has in a row of its own, so its log-prob is the same but for the
order in which floats are added. Worth it for short answers to longer prompts. The mask takes a byte, and its additive
form those of a float, for every pair of positions of a row, so a row takes no more answers than `limit` tokens hold.
Which sequences share a row is decided once, where a batch is cut (learner/batch.py): decided anew within a micro-batch,
it could make rows wider than those that were counted.
Not covered: models whose attention is more than a mask over positions (recurrent layers, windows); they are refused on
load (learner/policy.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from common.types import Int32Array

Int64 = npt.NDArray[np.int64]


class SharedRows(NamedTuple):
    """S rows of L positions, zeros right of each, with N answer tokens in the order of the sequences."""

    input_ids: Int64  # [S, L]
    positions: Int64  # [N], flat index that predicts answer token n
    targets: Int64  # [N], the answer tokens
    position_ids: Int64  # [S, L]
    visible: npt.NDArray[np.bool_]  # [S, 1, L, L], whether row position i sees j


def division(prompts: Sequence[Int32Array], answers: Sequence[int], limit: int) -> list[int]:
    """How many of the sequences stand in each row: neighbours with equal prompts, while prompt and answers together
    are at most `limit` tokens. A sequence longer than that has a row of its own."""
    counts: list[int] = []
    width = 0
    for i, (prompt, length) in enumerate(zip(prompts, answers, strict=True)):
        if counts and width + length <= limit and np.array_equal(prompt, prompts[i - 1]):
            counts[-1] += 1
            width += length
        else:
            counts.append(1)
            width = len(prompt) + length
    return counts


def shared_rows(
    tokens: Int32Array, prompt_lengths: Int32Array, answer_lengths: Int32Array, counts: Int32Array
) -> SharedRows:
    """Of concatenated prompt + answer sequences, `counts` of them in each row. The last token of each is only a target.

    ValueError if a sequence has no prompt or no answer token, or a row more than one prompt.
    """
    if min(prompt_lengths, default=0) < 1 or min(answer_lengths) < 1:
        raise ValueError("every sequence needs a prompt token and an answer token")
    pieces = np.split(tokens, np.cumsum(np.stack([prompt_lengths, answer_lengths], 1).ravel())[:-1])
    prompts, answers = pieces[0::2], pieces[1::2]
    ends = np.cumsum(counts)
    rows = [(prompts[end - count], answers[end - count : end]) for end, count in zip(ends, counts, strict=True)]
    if not all(map(np.array_equal, prompts, (prompt for prompt, given in rows for _ in given))):
        raise ValueError("sequences of one row need equal prompts")
    width = max(len(prompt) + sum(len(answer) - 1 for answer in given) for prompt, given in rows)
    ids, places = np.zeros((2, len(rows), width), np.int64)
    owner = np.full((len(rows), width), -1)  # 0: the prompt, 1…: an answer, -1: padding
    positions: list[Int64] = []
    for row, (prompt, given) in enumerate(rows):
        at = len(prompt)
        ids[row, :at], places[row, :at], owner[row, :at] = prompt, np.arange(at), 0
        for number, answer in enumerate(given, 1):
            end = at + len(answer) - 1
            ids[row, at:end], owner[row, at:end] = answer[:-1], number
            places[row, at:end] = len(prompt) + np.arange(end - at)
            positions.append(row * width + np.concatenate([[len(prompt) - 1], np.arange(at, end)]))
            at = end
    sees = (owner[:, :, None] == owner[:, None, :]) | (owner[:, None, :] == 0)
    visible = (sees & np.tril(np.ones((width, width), bool)))[:, None]
    return SharedRows(ids, np.concatenate(positions), np.concatenate(answers).astype(np.int64), places, visible)
