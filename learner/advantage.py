"""Advantages of a batch, one float per sequence: TRR++ (Absolute Zero, section 3.3.5) and a baseline per task.

Within each stream, with w = 1 or the tokens of a sequence and g the sequences that share a baseline,

    A_i = (r_i - m_g) / sqrt(v + ε)        m_g = Σ_g w r / Σ_g w        v = Σ w (r - m_g)² / (Σ w - number of g)

where the sums of v are over the compared sequences: those that share their baseline with another.

TRR++ is one g per stream; with token counts as w it is the official code to the digit: mean and unbiased variance over
all tokens of the stream, each of which carries its sequence's reward. A baseline per task makes the answers to one
task a g, as in GRPO (arXiv 2402.03300) and RLOO (2402.14740), so that answers are compared with each other and not
with answers to easier tasks. v stays that of the stream: dividing by each group's own deviation would weigh up tasks
that nearly all or nearly none got right (Dr. GRPO, 2503.20783), and the stream's keeps all streams at one scale, which
is what TRR++ is for. Proposals have one task each and so always their stream as g.

Departures: a stream with fewer than MIN_SEQUENCES compared sequences has no advantages, since its deviation would be
noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from common.types import STREAMS, Float32Array, Kind

MIN_SEQUENCES = 4
MIN_ANSWERS = 2  # of a task, to be compared with each other
EPSILON = 1e-8


class Advantages(NamedTuple):
    """`values` float32 [S]; zero in streams and tasks without signal, which are those paid alike or too small."""

    values: Float32Array
    silent_streams: tuple[Kind, ...]
    silent_tasks: int  # with a baseline per task: those whose answers carry no signal, all of a silent stream's


def whiten(
    streams: Sequence[Kind],
    rewards: Sequence[float],
    *,
    tokens: Sequence[int] | None = None,
    tasks: Sequence[int] | None = None,
) -> Advantages:
    """Arguments have one entry per sequence. `tokens`: its length, to weigh it by. `tasks`: a baseline for each.

    `tasks` says which sequences answer the same task; it is not looked at for proposals.
    """
    names = np.asarray([stream.value for stream in streams])
    values = np.asarray(rewards, dtype=np.float64)
    weights = np.ones_like(values) if tokens is None else np.asarray(tokens, dtype=np.float64)
    found = np.zeros(len(values), dtype=np.float32)
    silent: list[Kind] = []
    silent_tasks = 0
    for stream in STREAMS:
        members = np.flatnonzero(names == stream.value)
        if len(members) == 0:
            continue
        sets, alike, count = [members], 0, 0
        if tasks is not None and not stream.proposes:
            of = np.asarray(tasks)[members]
            sets = [members[of == task] for task in np.unique(of)]
            alike, count = sum(bool(np.ptp(values[s]) == 0.0) for s in sets), len(sets)
            sets = [s for s in sets if len(s) >= MIN_ANSWERS]
        compared = np.concatenate([np.zeros(0, np.intp), *sets])
        centred = np.zeros_like(values)
        for s in sets:
            if np.ptp(values[s]) > 0.0:
                centred[s] = values[s] - np.average(values[s], weights=weights[s])
        if len(compared) < MIN_SEQUENCES or not centred.any():
            silent.append(stream)
            silent_tasks += count
            continue
        silent_tasks += alike
        freedom = weights[compared].sum() - len(sets)
        variance = (weights * centred**2)[compared].sum() / freedom
        found[compared] = centred[compared] / np.sqrt(variance + EPSILON)
    return Advantages(found, tuple(silent), silent_tasks)


def shuffle(streams: Sequence[Kind], rewards: Sequence[float], seed: int) -> list[float]:
    """The rewards dealt anew at random within each stream: a control in which a reward says nothing of its sequence."""
    names = np.asarray([stream.value for stream in streams])
    dealt = np.asarray(rewards, dtype=np.float64)
    rng = np.random.default_rng(seed)
    for stream in STREAMS:
        members = np.flatnonzero(names == stream.value)
        dealt[members] = dealt[rng.permutation(members)]
    return [float(reward) for reward in dealt]
