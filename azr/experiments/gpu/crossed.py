"""Answers into which pushes fell: has each token the log-prob of the version that is said to have sampled it?

Versions that are counted wrongly by a token show where two meet, so the last token of one and the first of the next are
held against both. The engine computes keys and values anew at a push (`engine.kv=recompute`), so the log-probs of a
version are those of one pass of its weights over the whole sequence.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import numpy as np

from common.types import Float32Array, Int32Array

if TYPE_CHECKING:
    from actors.engine import Completion

MOST = 64  # answers that are looked at


@dataclass(frozen=True)
class Crossed:
    """One answer of several versions. `spans`: (version, first token, end)."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    spans: tuple[tuple[int, int, int], ...]

    @property
    def sequence(self) -> Int32Array:
        return np.asarray(self.prompt + self.tokens, np.int32)


def note(found: list[Crossed], prompt: Int32Array, answer: Completion) -> None:
    """Add `answer` to `found` if several versions sampled it and there is room."""
    if len(answer.spans) > 1 and len(found) < MOST:
        spans = tuple((span.version, span.start, span.end) for span in answer.spans)
        logprobs = tuple(answer.logprobs.tolist())
        found.append(Crossed(tuple(prompt.tolist()), tuple(answer.tokens.tolist()), logprobs, spans))


def write(file: Path, found: Sequence[Crossed]) -> None:
    file.write_text(json.dumps([[c.prompt, c.tokens, c.logprobs, c.spans] for c in found]))


def read(file: Path) -> list[Crossed]:
    rows = json.loads(file.read_text())
    return [Crossed(tuple(p), tuple(t), tuple(lp), tuple((v, b, e) for v, b, e in spans)) for p, t, lp, spans in rows]


def at_seams(found: Sequence[Crossed], scores: Sequence[Sequence[Float32Array]]) -> dict[str, Any]:
    """How far tokens beside a seam are from the version that is said to have sampled them, and from the one across it.

    `scores[v][i]`: log-probs of tokens 1… of `found[i].sequence` under version v. In nats: means `own` and `other`, and
    `worst`, the largest of own; 0 without a seam.
    """
    own, other = [], []
    for i, answer in enumerate(found):
        for (before, _, seam), (after, _, _) in pairwise(answer.spans):
            for token, right, wrong in ((seam - 1, before, after), (seam, after, before)):
                place = len(answer.prompt) + token - 1
                own.append(abs(answer.logprobs[token] - float(scores[right][i][place])))
                other.append(abs(answer.logprobs[token] - float(scores[wrong][i][place])))
    return {
        "seams": len(own) // 2,
        "own": mean(own or [0.0]),
        "worst": max(own, default=0.0),
        "other": mean(other or [0.0]),
    }
