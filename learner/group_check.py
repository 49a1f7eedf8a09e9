"""Is a group consistent in itself? The wire checks types; this checks what the learner relies on.

A group that fails is refused before it is journaled; its actor is told and ends.
"""

from __future__ import annotations

import math

import numpy as np

from common.errors import WireError
from common.types import STREAMS, Group, Kind, Sample
from learner.leases import kind_of


def require_consistent(group: Group) -> None:
    """WireError naming the first thing that is wrong."""
    if group.kind is not kind_of(group.lease):
        raise WireError(f"lease {group.lease} is of kind {kind_of(group.lease)}, its group says {group.kind}")
    if not group.failure and not group.samples:
        raise WireError(f"group of lease {group.lease} has neither samples nor a failure")
    for number, sample in enumerate(group.samples):
        wrong = _wrong(sample, len(group.prompts), loaded=group.kind is Kind.SEED)
        if wrong:
            raise WireError(f"group of lease {group.lease}, sample {number}: {wrong}")
    if any(not 0 <= flag.sample < len(group.samples) for flag in group.flags):
        raise WireError(f"group of lease {group.lease} flags a sample that it does not hold")


def _wrong(sample: Sample, prompts: int, *, loaded: bool) -> str:
    """`loaded`: the sample may stand for a task that nobody sampled, which has no tokens."""
    length = len(sample.tokens)
    if sample.stream not in STREAMS:
        return f"stream {sample.stream}"
    if not 0 <= sample.prompt < prompts:
        return f"prompt {sample.prompt} of {prompts}"
    if (length == 0 and not loaded) or len(sample.logprobs) != length:
        return f"{length} tokens with {len(sample.logprobs)} log-probs"
    if not np.isfinite(sample.logprobs).all():
        return "log-probs that are not finite"
    edges = [0, *(edge for span in sample.spans for edge in (span.start, span.end)), length]
    if any(a != b for a, b in zip(edges[::2], edges[1::2], strict=True)) or edges != sorted(edges):
        return f"spans {sample.spans} do not cover {length} tokens"
    return "" if math.isfinite(sample.reward) else f"reward {sample.reward}"
