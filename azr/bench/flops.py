"""How many floating-point operations a learner step is worth, and how many a GPU can do: MFU by counting, not by rule.

Model FLOPs utilisation (Chowdhery et al., arXiv 2204.02311, appendix B) is what the model's own arithmetic needs, over
what the devices could have done in the same time. A multiply-add is two operations, a backward pass twice its forward
pass. Counted are matrix products: the layers for every position, attention for every pair of positions of which one
sees the other, the vocabulary head where an answer token is predicted, which is where it runs. Not counted: the
embedding (a look-up), norms, softmaxes, the optimiser, and whatever is computed more than once or only looked at:
activations under checkpointing, a head in parts, passes without a gradient (a reference, a recomputed anchor), padding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from azr.architecture import Architecture
from common.types import MicroBatch

_TRAINING = 3  # forward passes that a forward and a backward pass cost
# Dense bfloat16 products with float32 sums, TFLOP/s, of NVIDIA's data sheets. The first name that occurs counts.
_PEAKS = (
    ("H100 PCIe", 756.0),
    ("H100 NVL", 835.0),
    ("H100", 989.0),
    ("GH200", 989.0),
    ("H200", 989.0),
    ("B200", 2250.0),
    ("A100", 312.0),
    ("L40S", 362.0),
)


@dataclass(frozen=True, slots=True)
class Work:
    """Of a batch, each sequence by itself, unless the answers in a row share one prompt: that counts once.

    `tokens`: of prompts and answers; `positions`: those that go through the layers (the last token of an answer is
    only a target); `scored`: answer tokens; `pairs`: (position, position it sees), itself included.
    """

    tokens: int
    positions: int
    scored: int
    pairs: int


def work(batches: Iterable[MicroBatch], *, shared: bool = False) -> Work:
    """`shared`: the sequences of a row stand behind one copy of their prompt (learner.share_prompts)."""
    tokens = positions = scored = pairs = 0
    for batch in batches:
        prompts = batch.prompt_lengths.astype(np.int64)
        answers = batch.answer_lengths.astype(np.int64)
        own = prompts[np.cumsum(batch.rows) - batch.rows] if shared else prompts  # those that are there
        tokens += int(own.sum() + answers.sum())
        positions += int(own.sum() + (answers - 1).sum())
        scored += int(answers.sum())
        pairs += int((own * (own + 1) // 2).sum() + ((answers - 1) * prompts + (answers - 1) * answers // 2).sum())
    return Work(tokens, positions, scored, pairs)


def layer_parameters(model: Architecture) -> int:
    """Of all layers, those in matrix products: query, key, value, output, and the three of a gated feed-forward."""
    shape = model.shape
    queries, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    return shape.layers * shape.hidden * (2 * queries + 2 * keys + 3 * model.feed_forward)


def training(model: Architecture, work: Work) -> int:
    """Floating-point operations of a forward and a backward pass."""
    shape = model.shape
    layers = 2 * layer_parameters(model) * work.positions
    attention = 4 * shape.layers * shape.heads * shape.head_dim * work.pairs
    head = 2 * shape.hidden * shape.vocabulary * work.scored
    return _TRAINING * (layers + attention + head)


def peak(device: str) -> float | None:
    """FLOP/s of a GPU of this name in bfloat16; None for one that is not known."""
    return next((tera * 1e12 for name, tera in _PEAKS if name in device), None)
