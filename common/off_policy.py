"""Settings of the loss: which one, its few numbers, how often a batch is stepped on, and when drift warns or stops.

They are keys of `learner`. What each loss does with its numbers stands in learner/loss.py; only those of the loss that
is chosen act.
"""

from __future__ import annotations

from dataclasses import dataclass

LOSSES = ("ppo", "reinforce", "decoupled", "tis", "icepop", "cispo", "gspo", "aipo")
ANCHORED = ("decoupled", "tis", "icepop")  # of these, those that look at the proximal policy
PROXIMAL = ("recompute", "interpolate")


@dataclass(frozen=True)
class OffPolicyConfig:
    loss: str = "ppo"  # ppo | reinforce | decoupled | tis | icepop | cispo | gspo | aipo
    clip: float = 0.2  # ppo, decoupled, tis, icepop: ε of the clipped ratio
    proximal: str = "recompute"  # decoupled, tis, icepop: the weights a step began with | interpolate (A-3PO)
    decoupled_cap: float = 5.0  # tokens whose weight is larger are left out
    tis_cap: float = 2.0  # weights are cut to it
    icepop_low: float = 0.5  # tokens whose weight is outside are left out
    icepop_high: float = 5.0
    cispo_low: float = 0.0  # bounds of the ratio
    cispo_high: float = 5.0
    gspo_clip_low: float = 3e-4  # ε below and above 1 of a sequence's mean ratio; published for a step's own samples
    gspo_clip_high: float = 4e-4
    aipo_cap: float = 5.0  # of the ratio
    minibatches: int = 1  # optimiser steps per batch
    entropy_bonus: float = 0.0  # per token and nat; the paper: 0.001
    kl: float = 0.0  # weight of the KL divergence to the first weights; 0: no reference model is loaded
    warn_mismatch: float = 0.05  # mean |log ratio| on tokens of the step's own weights, nats, that is logged; 0: never
    stop_mismatch: float = 0.0  # that ends the run; 0: never
    warn_ess: float = 0.5  # effective sample size of a batch, a share of its tokens, below which it is logged
    stop_ess: float = 0.0  # below which the run ends

    @property
    def off_policy_rules(self) -> list[tuple[bool, str]]:
        """What must hold, and what to say if it does not."""
        return [
            (self.loss in LOSSES, f"learner.loss must be {', '.join(LOSSES[:-1])} or {LOSSES[-1]}"),
            (self.proximal in PROXIMAL, f"learner.proximal must be {' or '.join(PROXIMAL)}"),
            (
                0 < self.clip <= 1,
                "learner.clip must lie above 0 and not above 1: the ratio is held to 1 - clip … 1 + clip",
            ),
            (
                min(self.decoupled_cap, self.tis_cap, self.aipo_cap) >= 1,
                "learner.decoupled_cap, tis_cap and aipo_cap must be at least 1: less would cut on-policy tokens",
            ),
            (
                0 <= self.icepop_low < 1 < self.icepop_high and 0 <= self.cispo_low < 1 < self.cispo_high,
                "learner.icepop_low, icepop_high, cispo_low and cispo_high bound a ratio: 0 <= low < 1 < high",
            ),
            (
                0 < self.gspo_clip_low <= 1 and self.gspo_clip_high > 0,
                "learner.gspo_clip_low and gspo_clip_high must lie above 0, the low one not above 1",
            ),
            (self.minibatches >= 1, "learner.minibatches must be at least 1"),
            (min(self.entropy_bonus, self.kl) >= 0, "learner.entropy_bonus and kl must be at least 0 (0: off)"),
            (
                min(self.warn_mismatch, self.stop_mismatch) >= 0,
                "learner.warn_mismatch and stop_mismatch must be at least 0 nats (0: never)",
            ),
            (
                min(self.warn_ess, self.stop_ess) >= 0 and max(self.warn_ess, self.stop_ess) <= 1,
                "learner.warn_ess and stop_ess are shares of tokens, 0 (never) to 1",
            ),
        ]
