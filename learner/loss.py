"""Per-token policy-gradient losses: one pure function each, all with the same signature.

A loss maps log-probs of sampled tokens under the trained policy, the same under the policy that sampled them,
and advantages (each float32 [N], one entry per answer token) to a loss per token [N]. How tokens are weighted
into the loss of a batch is not decided here (common.types.MicroBatch).
Invariant: gradients flow through `logprobs` alone, and are finite for finite arguments.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class TokenLoss(NamedTuple):
    loss: Tensor  # [N], differentiable
    statistics: dict[str, Tensor]  # name → [N], detached; reported as means over tokens


class Loss(Protocol):
    def __call__(
        self, logprobs: Tensor, behaviour_logprobs: Tensor, advantages: Tensor, *, clip: float
    ) -> TokenLoss: ...


# exp(20) is far outside any clip range and far inside float32: one absurd token cannot turn a batch into inf.
MAX_LOG_RATIO = 20.0


def probability_ratio(logprobs: Tensor, behaviour_logprobs: Tensor) -> Tensor:
    """π(token) / μ(token), [N]: trained over behaviour probability of the sampled tokens."""
    return (logprobs - behaviour_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def reinforce(logprobs: Tensor, behaviour_logprobs: Tensor, advantages: Tensor, *, clip: float = 0.0) -> TokenLoss:
    """Plain policy gradient, −A · log π (Williams 1992). Uncorrected: right for on-policy tokens only.

    `behaviour_logprobs` and `clip` are not used.
    """
    return TokenLoss(-advantages * logprobs, {})


def ppo(logprobs: Tensor, behaviour_logprobs: Tensor, advantages: Tensor, *, clip: float) -> TokenLoss:
    """Clipped surrogate, −min(r·A, clip(r, 1 − ε, 1 + ε)·A) with ε = `clip` (arXiv 1707.06347, eq. 7).

    r is taken against the log-probs the token was sampled with, so it also corrects for stale weights.
    Statistic `clipped`: 1 where the clip removed the gradient of the token.
    """
    ratio = probability_ratio(logprobs, behaviour_logprobs)
    free = ratio * advantages
    bounded = ratio.clamp(1.0 - clip, 1.0 + clip) * advantages
    clipped = (bounded < free).detach().to(logprobs.dtype)
    return TokenLoss(-torch.minimum(free, bounded), {"clipped": clipped})


LOSSES: dict[str, Loss] = {"reinforce": reinforce, "ppo": ppo}
