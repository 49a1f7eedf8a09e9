"""Per-token policy-gradient losses: one pure function each, all with the same signature.

A loss maps what is known of N answer tokens (Tokens) and its numbers (common/off_policy.py) to a loss per token [N].
How tokens are weighted into the loss of a batch is not decided here (common.types.MicroBatch).

Three policies appear: π, being trained; μ, which sampled the token; and the proximal one, π as it was when the step
began. With one optimiser step per batch proximal = π, so its ratio is 1 and no clip round it acts.
Invariant: gradients flow through `logprobs` alone, and are finite for finite arguments.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from common.off_policy import OffPolicyConfig


class Tokens(NamedTuple):
    """Of the answers of S sequences, one after another. All but `logprobs` are constants."""

    logprobs: Tensor  # [N] float32, log π
    behaviour: Tensor  # [N] float32, log μ
    proximal: Tensor  # [N] float32, log-probs under the proximal policy
    advantages: Tensor  # [N] float32
    lengths: Tensor  # [S] int64, answer tokens of each sequence; they sum to N


class TokenLoss(NamedTuple):
    loss: Tensor  # [N], differentiable
    statistics: dict[str, Tensor]  # name → [N], detached; reported as means over tokens


class Loss(Protocol):
    def __call__(self, tokens: Tokens, settings: OffPolicyConfig) -> TokenLoss: ...


# exp(20) is far outside any clip range and far inside float32: one absurd token cannot turn a batch into inf.
MAX_LOG_RATIO = 20.0


def probability_ratio(logprobs: Tensor, behaviour_logprobs: Tensor) -> Tensor:
    """π(token) / μ(token), [N]: trained over behaviour probability of the sampled tokens."""
    return (logprobs - behaviour_logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()


def reinforce(tokens: Tokens, settings: OffPolicyConfig) -> TokenLoss:
    """Plain policy gradient, −A · log π (Williams 1992). Uncorrected: right for on-policy tokens only."""
    return TokenLoss(-tokens.advantages * tokens.logprobs, {})


def ppo(tokens: Tokens, settings: OffPolicyConfig) -> TokenLoss:
    """Clipped surrogate, −min(r·A, clip(r, 1 − ε, 1 + ε)·A) with ε = `clip` (arXiv 1707.06347, eq. 7).

    r = π / μ, so it also corrects for stale weights. Statistic `clipped`: 1 where the clip removed the gradient.
    """
    ratio = probability_ratio(tokens.logprobs, tokens.behaviour)
    loss, clipped = _surrogate(ratio, tokens.advantages, settings.clip, settings.clip)
    return TokenLoss(loss, {"clipped": clipped})


def decoupled(tokens: Tokens, settings: OffPolicyConfig) -> TokenLoss:
    """Decoupled PPO: w · PPO round the proximal policy, w = proximal / μ (Hilton et al., arXiv 2110.00641; for language
    models AReaL, 2505.24298): the weight corrects for stale samples, the clip bounds the step.

    Tokens with w > `decoupled_cap` are left out, as AReaL does. Statistics `clipped`, and `masked`: 1 where left out.
    """
    weight = _weight(tokens)
    return _anchored(tokens, settings, weight, keep=weight <= settings.decoupled_cap)


def tis(tokens: Tokens, settings: OffPolicyConfig) -> TokenLoss:
    """Truncated importance sampling: min(w, C) · PPO round the proximal policy, w = proximal / μ, C = `tis_cap` (Yao et
    al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"; Ionides 2008 for the cut).

    Statistics `clipped`, and `truncated`: 1 where w was cut.
    """
    weight = _weight(tokens)
    loss, statistics = _anchored(tokens, settings, weight.clamp(max=settings.tis_cap))
    return TokenLoss(loss, {**statistics, "truncated": (weight > settings.tis_cap).to(weight.dtype)})


def icepop(tokens: Tokens, settings: OffPolicyConfig) -> TokenLoss:
    """IcePop: w · PPO round the proximal policy where `icepop_low` ≤ w ≤ `icepop_high`, w = proximal / μ, and nothing
    elsewhere (Ring-1T, arXiv 2510.18855).

    Statistics `clipped`, and `masked`: 1 where left out.
    """
    weight = _weight(tokens)
    return _anchored(tokens, settings, weight, keep=(settings.icepop_low <= weight) & (weight <= settings.icepop_high))


def cispo(tokens: Tokens, settings: OffPolicyConfig) -> TokenLoss:
    """CISPO: −sg(clip(r, `cispo_low`, `cispo_high`)) · A · log π, r = π / μ (MiniMax-M1, arXiv 2506.13585).

    The weight is bounded and no token loses its gradient. The paper switches the lower bound off as well; the upper one
    follows ScaleRL (2510.13786). Statistic `truncated`: 1 where the weight was bounded.
    """
    return _weighted(tokens, settings.cispo_low, settings.cispo_high)


def gspo(tokens: Tokens, settings: OffPolicyConfig) -> TokenLoss:
    """GSPO: −min(s·A, clip(s, 1 − ε_low, 1 + ε_high)·A), s = (π(y) / μ(y))^(1/|y|), the geometric mean of the ratios of
    a sequence's tokens (arXiv 2507.18071, eq. 5), ε = `gspo_clip_low`, `gspo_clip_high`.

    Every token carries its sequence's value, so a sequence counts by its tokens like in every loss here, where the
    paper counts sequences alike. Statistic `clipped`: 1 for all tokens of a sequence that lost its gradient.
    """
    mean = torch.segment_reduce(tokens.logprobs - tokens.behaviour, "mean", lengths=tokens.lengths, unsafe=True)
    ratio = mean.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    ratio = ratio.repeat_interleave(tokens.lengths, output_size=len(tokens.logprobs))
    loss, clipped = _surrogate(ratio, tokens.advantages, settings.gspo_clip_low, settings.gspo_clip_high)
    return TokenLoss(loss, {"clipped": clipped})


def aipo(tokens: Tokens, settings: OffPolicyConfig) -> TokenLoss:
    """AIPO: −sg(min(r, ρ)) · A · log π, r = π / μ, ρ = `aipo_cap` (LlamaRL, arXiv 2505.24034), bounded on one side.

    CISPO without its lower bound is the same. Statistic `truncated`: 1 where the weight was cut.
    """
    return _weighted(tokens, 0.0, settings.aipo_cap)


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate of KL(π ‖ reference) per token [N], differentiable: x − log x − 1 with x = reference / π, unbiased on
    samples of π and never negative (Schulman 2020, "Approximating KL divergence", k3)."""
    log = (reference_logprobs - logprobs).clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO)
    return log.exp() - log - 1.0


def interpolated(logprobs: Tensor, behaviour: Tensor, staleness: Tensor) -> Tensor:
    """A-3PO's stand-in for the proximal log-probs [N], without a forward pass (arXiv 2512.06547).

    log μ + a (log π − log μ), a = (v_proximal − v_μ) / (v_π − v_μ). In step u the proximal policy is version u and π is
    on its way to u + 1, so a = d / (d + 1) at staleness d = u − v_μ. Detached.
    """
    share = staleness / (staleness + 1)
    return behaviour + share * (logprobs.detach() - behaviour)


def _weight(tokens: Tokens) -> Tensor:
    return probability_ratio(tokens.proximal, tokens.behaviour)


def _surrogate(ratio: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """PPO's objective as a loss [N], and where it has no gradient [N]."""
    free = ratio * advantages
    bounded = ratio.clamp(1.0 - low, 1.0 + high) * advantages
    return -torch.minimum(free, bounded), (bounded < free).detach().to(ratio.dtype)


def _anchored(tokens: Tokens, settings: OffPolicyConfig, weight: Tensor, keep: Tensor | None = None) -> TokenLoss:
    """`weight` [N] times PPO round the proximal policy, where `keep` [N]."""
    ratio = probability_ratio(tokens.logprobs, tokens.proximal)
    loss, clipped = _surrogate(ratio, tokens.advantages, settings.clip, settings.clip)
    if keep is None:
        return TokenLoss(weight * loss, {"clipped": clipped})
    kept = keep.to(weight.dtype)
    return TokenLoss(weight * kept * loss, {"clipped": clipped * kept, "masked": 1.0 - kept})


def _weighted(tokens: Tokens, low: float, high: float) -> TokenLoss:
    """−sg(clip(r)) · A · log π, r = π / μ."""
    ratio = probability_ratio(tokens.logprobs.detach(), tokens.behaviour)
    weight = ratio.clamp(low, high)
    loss = -weight * tokens.advantages * tokens.logprobs
    return TokenLoss(loss, {"truncated": (weight != ratio).to(weight.dtype)})


LOSSES: dict[str, Loss] = {
    "ppo": ppo,
    "reinforce": reinforce,
    "decoupled": decoupled,
    "tis": tis,
    "icepop": icepop,
    "cispo": cispo,
    "gspo": gspo,
    "aipo": aipo,
}
