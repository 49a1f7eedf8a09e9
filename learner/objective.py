"""From a micro-batch to the number whose gradient is taken: losses of tokens, entropy bonus, KL to the first weights.

Invariants: with `entropy_bonus` and `kl` 0 the loss is the weighted sum of the token losses and nothing else is
computed, nor a reference loaded. All but the construction is collective where the scorer's forward pass is.
The reference is computed like the policy, in its precision with the same attention and head: what rounding does is in
both, and weights do not diverge from themselves.
Not covered: a reference divided over ranks; each holds a whole one.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from common.learner import LearnerConfig
from common.off_policy import ANCHORED
from common.types import MicroBatch
from learner import policy
from learner.loss import LOSSES, Tokens, interpolated, kl_k3
from learner.pinned import onto
from learner.step_metrics import StepMetrics

# Stands in for an empty micro-batch: its weight, and so its gradient, is 0, yet it runs every collective and
# gives every parameter a gradient. It has two inputs: torch.compile makes a graph of its own for a size of one.
PADDING = MicroBatch(
    tokens=np.zeros(3, np.int32),
    prompt_lengths=np.full(1, 2, np.int32),
    answer_lengths=np.ones(1, np.int32),
    logprobs=np.zeros(1, np.float32),
    staleness=np.zeros(1, np.int32),
    advantages=np.zeros(1, np.float32),
    weights=np.zeros(1, np.float32),
    rows=np.ones(1, np.int32),
)


class Objective:
    """The loss of `settings`. `first`: folder of the model that the run began with, whatever it resumes from; `dtype`:
    that of the policy."""

    def __init__(
        self,
        settings: LearnerConfig,
        first: Path,
        device: torch.device,
        dtype: torch.dtype = torch.float32,
        *,
        head_parts: int = 1,
    ) -> None:
        self.settings = settings
        self.device = device
        self.loss = LOSSES[settings.loss]
        self._recomputes = settings.loss in ANCHORED and settings.proximal == "recompute"
        self._interpolates = settings.loss in ANCHORED and settings.proximal == "interpolate"
        self.reference = (
            policy.load_policy(
                first,
                dtype,
                head_parts=head_parts,
                head_float32=settings.head_float32,
                packing=settings.packing,
                compiled=settings.compile,
            )
            .requires_grad_(False)
            .to(device)
            if settings.kl
            else None
        )

    def proximal(self, scorer: policy.Scorer, updates: Sequence[Sequence[MicroBatch]]) -> list[list[Tensor | None]]:
        """Log-probs [Σ answer] under the weights as they are, for each micro-batch of each optimiser step of a batch;
        None where nobody needs them, or where they will be those of the training pass itself: in the first step."""
        anchors: list[list[Tensor | None]] = []
        for number, batches in enumerate(updates):
            if number == 0 or not self._recomputes:
                anchors.append([None] * len(batches))
                continue
            with torch.no_grad():
                anchors.append([self._scores(scorer, padded(b)).logprobs for b in batches])
        return anchors

    def __call__(
        self, scorer: policy.Scorer, batch: MicroBatch, anchor: Tensor | None, metrics: StepMetrics, *, moved: bool
    ) -> Tensor:
        """The loss [] of one micro-batch, whose figures go to `metrics`. `anchor`: what `proximal` gave for it.
        `moved`: the weights are no longer those that the step began with."""
        empty = batch is PADDING or len(batch.answer_lengths) == 0
        batch = padded(batch)
        counts = batch.answer_lengths
        owner = np.repeat(np.arange(len(counts)), counts)
        oldest = np.zeros(len(counts), np.int32)
        np.maximum.at(oldest, owner, batch.staleness)
        # Spread over tokens on the host: a device would first have to tell it how many they are.
        behaviour, lengths, advantages, weights, staleness, fresh = (
            onto(array, self.device)
            for array in (
                batch.logprobs,
                counts.astype(np.int64),
                batch.advantages[owner],
                batch.weights[owner],
                batch.staleness,
                (oldest == 0)[owner] & (not moved),
            )
        )
        rows = policy.rows_of(batch, packing=self.settings.packing)
        logprobs, entropy = policy.scored(scorer, rows, self.device)
        if self._interpolates:
            anchor = interpolated(logprobs, behaviour, staleness)
        tokens = Tokens(logprobs, behaviour, logprobs.detach() if anchor is None else anchor, advantages, lengths)
        losses, statistics = self.loss(tokens, self.settings)
        statistics = {"entropy": entropy.detach(), **statistics}
        if self.settings.entropy_bonus:
            losses = losses - self.settings.entropy_bonus * entropy
        if self.reference is not None:
            with torch.no_grad():
                reference = policy.scored(self.reference, rows, self.device).logprobs
            divergence = kl_k3(logprobs, reference)
            losses = losses + self.settings.kl * divergence
            statistics["kl_reference"] = divergence.detach()
        loss = (weights * losses).sum()
        metrics.add(loss, logprobs, behaviour, staleness, statistics, fresh, 0 if empty else len(lengths))
        metrics.add_positions(rows.input_ids.size, 0 if empty else filled(batch, packing=self.settings.packing))
        return loss

    def _scores(self, scorer: policy.Scorer, batch: MicroBatch) -> policy.TokenScores:
        return policy.answer_scores(scorer, batch, self.device, packing=self.settings.packing)


def padded(batch: MicroBatch) -> MicroBatch:
    """`batch`, or what stands in for it if it is empty."""
    return batch if len(batch.answer_lengths) else PADDING


def filled(batch: MicroBatch, *, packing: bool) -> int:
    """Positions of the model's input that belong to a sequence: a shared prompt counts once, a last token never."""
    prompts = batch.prompt_lengths
    if not packing:
        prompts = prompts[np.cumsum(batch.rows) - batch.rows]
    return int(prompts.sum() + (batch.answer_lengths - 1).sum())
