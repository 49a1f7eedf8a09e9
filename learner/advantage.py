"""TRR++: advantages whitened within each stream, one float per sequence (Absolute Zero, section 3.3.5).

Departure from the official code, which whitens over tokens so that long answers weigh more: here each sequence counts
once. A stream with fewer than four trainable sequences, or whose rewards are all equal, carries no signal: its
advantages are zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from common.types import STREAMS, Float32Array, Kind

MIN_SEQUENCES = 4


def whiten(streams: Sequence[Kind], rewards: Sequence[float]) -> tuple[Float32Array, tuple[Kind, ...]]:
    """(advantages [S] float32, streams without signal). Standard deviation is the unbiased one."""
    names = np.asarray([stream.value for stream in streams])
    values = np.asarray(rewards, dtype=np.float64)
    advantages = np.zeros(len(values), dtype=np.float32)
    silent: list[Kind] = []
    for stream in STREAMS:
        mask = names == stream.value
        of_stream = values[mask]
        if len(of_stream) < MIN_SEQUENCES or np.ptp(of_stream) == 0.0:
            if len(of_stream):
                silent.append(stream)
            continue
        advantages[mask] = (of_stream - of_stream.mean()) / of_stream.std(ddof=1)
    return advantages, tuple(silent)
