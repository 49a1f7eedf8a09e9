"""What a base model is made by, and the name that follows from it.

Invariant: recipes, texts or held-out tasks that differ give other digests, so a folder named by one is never mistaken
for a model of another making. Not covered: versions of libraries and the kind of processor. No torch here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
from dataclasses import dataclass, field

from azr.base import heldout
from azr.base.text import Mix, Text

_SAMPLES = 100  # examples at each of the start, the middle and the end of training


@dataclass(frozen=True)
class Recipe:
    """Everything the weights depend on besides the text (azr/base/text.py).

    Small batches of few tokens at a moderate rate learn most per second: a rate twice as high, or batches twice as
    large, take half as long again to the same loss.
    """

    steps: int = 7000
    seed: int = 0
    vocabulary: int = 512  # at most
    vocabulary_examples: int = 4000  # that the tokenizer is made from
    pool: int = 4096  # examples drawn at a time and batched by length
    batch_tokens: int = 512  # padding included
    lr: float = 1.2e-3
    lr_end: float = 0.05  # of lr, reached linearly
    warmup: int = 30  # steps
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.01
    hidden: int = 128
    layers: int = 2
    heads: int = 4  # of size 32
    kv_heads: int = 2
    intermediate: int = 256
    mix: Mix = field(default_factory=Mix)

    def lr_at(self, step: int) -> float:
        decay = 1 - (1 - self.lr_end) * step / self.steps
        return self.lr * min(1.0, (step + 1) / self.warmup) * decay

    @property
    def digest(self) -> str:
        """Of the settings and of a sample of the text, in which every change of grammar, wording or split shows."""
        text = Text(self.mix, random.Random(self.seed))
        parts: list[object] = [dataclasses.asdict(self)]
        for text.progress in (0.0, 0.5, 1.0):
            parts += [text.example() for _ in range(_SAMPLES)]
        for tasks in (heldout.standard, heldout.harder):
            found = tasks(self.seed, per_type=2)
            parts.append((heldout.PER_TYPE, [(t.type, t.program, t.inputs, t.outputs, t.shown, t.key) for t in found]))
        return hashlib.blake2b(json.dumps(parts).encode(), digest_size=6).hexdigest()
