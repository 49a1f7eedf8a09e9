"""Several optimiser steps per batch, entropy bonus and KL on real DeepSpeed, against plain PyTorch; which losses
coincide when there is one step.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from common.config import Config
from common.errors import PartFailed
from common.learner import LearnerConfig
from common.types import MicroBatch, Share
from learner import policy
from learner.objective import Objective
from learner.trainer import Trainer
from tests.learner.test_trainer_real import (
    STEPS,
    Outcome,
    Sequence,
    batch_of,
    config_for,
    micro_batch,
    model,
    run_ranks,
    train_shares,
)

__all__ = ["model"]  # the fixture
pytestmark = pytest.mark.real

PARTS = (slice(0, 5), slice(5, 9), slice(9, 12))  # the sequences of each optimiser step
# sizes[rank][optimiser step][micro-batch]
DIVISIONS = {
    "1": (((2, 3), (4,), (1, 1, 1)),),
    "2": (((2, 1), (2,), (1,)), ((1, 1), (2,), (2,))),
    "2, one idle": (((2, 3), (4,), (3,)), ((0, 0), (0,), (0,))),
}


def shares_of(step: int, division: str) -> list[Share]:
    waiting = [list(batch_of(step)[part]) for part in PARTS]

    def batches(counts: tuple[int, ...], part: list[Sequence]) -> list[MicroBatch]:
        return [micro_batch([part.pop(0) for _ in range(count)]) for count in counts]

    return [
        Share(
            step,
            tuple(batch for counts, part in zip(sizes, waiting, strict=True) for batch in batches(counts, part)),
            tuple(len(counts) for counts in sizes),
        )
        for sizes in DIVISIONS[division]
    ]


def settings_for(model: Path, stage: int, **changes: Any) -> Config:
    config = config_for(model, stage)
    return replace(config, learner=replace(config.learner, **changes))


def reference(model: Path, settings: LearnerConfig) -> Outcome:
    """Decoupled PPO with entropy bonus and KL, one sequence at a time."""
    net, first = (
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager") for _ in range(2)
    )
    optimizer = torch.optim.AdamW(net.parameters(), betas=settings.betas, weight_decay=settings.weight_decay)

    def distribution(of: Any, s: Sequence) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.tensor(np.concatenate([s.prompt, s.answer]), dtype=torch.long)
        every = torch.log_softmax(of(tokens[None]).logits[0, len(s.prompt) - 1 : -1], -1)
        return every, every[torch.arange(len(s.answer)), tokens[len(s.prompt) :]]

    metrics = []
    for step in range(STEPS):
        with torch.no_grad():
            proximal = [distribution(net, s)[1] for s in batch_of(step)]
        total, norms, divergence, count = 0.0, [], 0.0, 0
        for part in PARTS:
            optimizer.zero_grad()
            loss = torch.zeros(())
            for s, anchor in zip(batch_of(step)[part], proximal[part], strict=True):
                every, now = distribution(net, s)
                weight = torch.exp(anchor - torch.tensor(s.logprobs))
                weight = torch.where(weight <= settings.decoupled_cap, weight, 0.0)
                ratio = torch.exp(now - anchor)
                bounded = torch.clamp(ratio, 1 - settings.clip, 1 + settings.clip)
                token = -weight * torch.min(ratio * s.advantage, bounded * s.advantage)
                with torch.no_grad():
                    origin = distribution(first, s)[1]
                gap = origin - now
                k3 = torch.exp(gap) - gap - 1
                entropy = -(every.exp() * every).sum(-1)
                loss = loss + s.weight * (token - settings.entropy_bonus * entropy + settings.kl * k3).sum()
                divergence, count = divergence + float(k3.detach().sum()), count + len(s.answer)
            torch.autograd.backward(loss)
            norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), settings.grad_clip)))
            optimizer.param_groups[0]["lr"] = settings.lr * min(1.0, (step + 1) / settings.warmup_steps)
            optimizer.step()
            total += loss.item()
        metrics.append({"loss": total, "grad_norm": max(norms), "kl_reference": divergence / count, "updates": 3})
    named = dict(net.named_parameters())
    return Outcome(
        metrics,
        {name: p.detach().numpy() for name, p in named.items()},
        {name: optimizer.state[p]["exp_avg"].numpy() for name, p in named.items()},
    )


def train(trainer: Trainer, division: str) -> Outcome:
    return train_shares(trainer, [shares_of(step, division)[trainer.rank] for step in range(STEPS)])


@pytest.mark.parametrize(("division", "stage"), [("1", 0), ("2", 2), ("2, one idle", 1), ("2", 3)])
def test_minibatches_entropy_and_kl_equal_plain_pytorch(model: Path, tmp_path: Path, division: str, stage: int) -> None:
    config = settings_for(model, stage, loss="decoupled", decoupled_cap=1.4, clip=0.01, entropy_bonus=0.05, kl=0.2)
    expected = reference(model, config.learner)
    ours: Outcome = run_ranks(train, config, len(DIVISIONS[division]), tmp_path, division)[0]
    for wanted, found in zip(expected.metrics, ours.metrics, strict=True):
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=2e-4, abs=1e-6)
        assert 0 < found["masked"] < 1
        assert 0 < found["clipped"] < 1
        assert 0 < found["fresh_tokens"] < found["staleness_0/tokens"]  # of the first optimiser step alone
    for name, weight in expected.weights.items():
        np.testing.assert_allclose(ours.moments[name], expected.moments[name], atol=1e-6, rtol=1e-3, err_msg=name)
        np.testing.assert_allclose(ours.weights[name], weight, atol=0.02 * config.learner.lr, err_msg=name)


# -- what coincides ------------------------------------------------------------------------------------------

WIDE: dict[str, Any] = {
    "clip": 0.01,
    "decoupled_cap": 1e6,
    "tis_cap": 1e6,
    "icepop_low": 0.0,
    "icepop_high": 1e6,
    "aipo_cap": 1e6,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "decoupled": {"loss": "decoupled", **WIDE},
    "decoupled, other clip": {"loss": "decoupled", **WIDE, "clip": 0.5},
    "tis": {"loss": "tis", **WIDE},
    "tis, cut": {"loss": "tis", **WIDE, "tis_cap": 1.1},
    "icepop": {"loss": "icepop", **WIDE},
    "aipo": {"loss": "aipo", **WIDE},
    "ppo": {"loss": "ppo"},
}


def with_every_loss(trainer: Trainer, division: str) -> dict[str, dict[str, Any]]:
    """The weights that each variant comes to from the same start, with one step per batch and with several."""
    trainer.save(Path("start"))
    found: dict[str, dict[str, Any]] = {}
    for name, changes in VARIANTS.items():
        for several in (False, True):
            trainer.load(Path("start"))
            trainer.objective = Objective(
                replace(trainer.config.learner, **changes), Path(trainer.config.model.path), trainer.zero.device
            )
            shares = [shares_of(step, division)[0] for step in range(STEPS)]
            outcome = train_shares(trainer, shares if several else [replace(s, updates=()) for s in shares])
            found[f"{name}, several" if several else name] = outcome.weights
    return found


def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(float(np.abs(one[name] - other[name]).max()) for name in one)


def test_with_one_step_per_batch_the_anchored_losses_are_one_and_their_clip_is_idle(
    model: Path, tmp_path: Path
) -> None:
    (found,) = run_ranks(with_every_loss, config_for(model, 0), 1, tmp_path, "1")
    lr = config_for(model, 0).learner.lr
    for same in ("decoupled, other clip", "tis", "icepop"):
        assert apart(found[same], found["decoupled"]) == 0.0, same
    assert apart(found["aipo"], found["decoupled"]) < 0.01 * lr  # the same gradient in another order of operations
    for other in ("tis, cut", "ppo", "decoupled, several"):
        assert apart(found[other], found["decoupled"]) > 0.1 * lr, other
    # With several the clip acts, so they part from AIPO, but not from each other as long as nothing is cut.
    assert apart(found["tis, several"], found["decoupled, several"]) == 0.0
    for other in ("decoupled, other clip, several", "aipo, several"):
        assert apart(found[other], found["decoupled, several"]) > 0.1 * lr, other


def anchors(trainer: Trainer, division: str) -> tuple[list[Any], list[Any]]:
    """Log-probs that the objective recomputes for later optimiser steps, and those of a pass before the first."""
    (share,) = shares_of(0, division)
    batches = iter(share.micro_batches)
    updates = [[next(batches) for _ in range(count)] for count in share.updates]
    recomputed = trainer.objective.proximal(trainer.zero, updates)
    straight = [policy.answer_scores(trainer.zero, b).logprobs.detach().numpy() for b in share.micro_batches]
    return [None if a is None else a.numpy() for part in recomputed for a in part], straight


def test_the_proximal_policy_of_the_first_step_costs_no_forward_pass(model: Path, tmp_path: Path) -> None:
    ((recomputed, straight),) = run_ranks(anchors, settings_for(model, 0, loss="tis"), 1, tmp_path, "1")
    assert [a is None for a in recomputed] == [True, True, False, False, False, False]
    assert all(np.array_equal(a, b) for a, b in zip(recomputed[2:], straight[2:], strict=True))


def stopped(trainer: Trainer) -> str:
    with pytest.raises(PartFailed) as failure:
        trainer.step(Share(0, (micro_batch(batch_of(0)),)))
    return str(failure.value)


def test_samples_too_far_from_the_policy_end_the_run(model: Path, tmp_path: Path) -> None:
    (told,) = run_ranks(stopped, settings_for(model, 0, stop_mismatch=0.01), 1, tmp_path)
    assert told.startswith("trainer rank 0: step 0: mismatch of") and "try: " in told
