"""From token losses to the loss of a micro-batch, by hand, with a scorer that gives what it is told."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from common.learner import LearnerConfig
from common.types import MicroBatch
from learner.objective import PADDING, Objective
from learner.policy import TokenScores
from learner.step_metrics import StepMetrics


def logs(*probabilities: float) -> Tensor:
    return torch.tensor([math.log(p) for p in probabilities])


@dataclass
class Told:
    """A policy that gives the answer tokens these log-probs and entropies, whatever they are."""

    logprobs: Tensor = field(default_factory=lambda: logs(0.5, 0.5, 0.5).requires_grad_())
    entropy: Tensor = field(default_factory=lambda: torch.tensor([1.0, 2.0, 3.0]).requires_grad_())

    def __call__(self, input_ids: Tensor, positions: Tensor, targets: Tensor) -> TokenScores:
        return TokenScores(self.logprobs[: len(targets)], self.entropy[: len(targets)])


@dataclass
class Noted(StepMetrics):
    """Keeps what it is given."""

    given: list[tuple[Any, ...]] = field(default_factory=list)
    positions: tuple[int, int] = (0, 0)

    def add(self, *arguments: Any) -> None:
        self.given.append(arguments)

    def add_positions(self, put_through: int, filled: int) -> None:
        self.positions = put_through, filled


def two_sequences(staleness: tuple[int, int, int] = (0, 0, 3)) -> MicroBatch:
    """One of two answer tokens, weight ½ and advantage 1; one of one token, weight 2 and advantage −1."""
    return MicroBatch(
        tokens=np.array([1, 2, 3, 4, 5], np.int32),
        prompt_lengths=np.array([1, 1], np.int32),
        answer_lengths=np.array([2, 1], np.int32),
        logprobs=np.log(np.array([0.25, 0.5, 1 / 32], np.float32)),
        staleness=np.array(staleness, np.int32),
        advantages=np.array([1.0, -1.0], np.float32),
        weights=np.array([0.5, 2.0], np.float32),
        rows=np.array([1, 1], np.int32),
    )


def objective(**settings: Any) -> Objective:
    """There is no model to read: without `kl` none is."""
    return Objective(LearnerConfig(**settings), Path("nowhere"), torch.device("cpu"))


def loss_of(told: Told, batch: MicroBatch, anchor: Tensor | None = None, **settings: Any) -> float:
    return objective(**settings)(told, batch, anchor, Noted(), moved=False).item()


def test_weights_and_advantages_are_those_of_the_sequence() -> None:
    # ratios 2, 1, 16: clipped to 1.2 where that is good
    assert loss_of(Told(), two_sequences()) == pytest.approx(-0.5 * 1.2 - 0.5 * 1 + 2 * 16)


def test_the_proximal_policy_is_that_of_the_pass_itself_unless_one_is_given() -> None:
    wide: dict[str, Any] = {"loss": "tis", "tis_cap": 100.0}
    assert loss_of(Told(), two_sequences(), **wide) == pytest.approx(-0.5 * 2 - 0.5 * 1 + 2 * 16)
    # weights ½ / ¼ = 2, 1, 8 · 1/32 … ratios of the step 1, 1, 2
    assert loss_of(Told(), two_sequences(), logs(0.5, 0.5, 0.25), **wide) == pytest.approx(-1 - 0.5 + 2 * 8 * 2)


def test_an_interpolated_proximal_policy_follows_the_age_of_each_token() -> None:
    """Fresh tokens: proximal is the sampler, weight 1, ratios 2 (clipped) and 1. Age 3: 1/32 · 16^¾ = ¼, weight 8."""
    settings: dict[str, Any] = {"loss": "tis", "tis_cap": 100.0, "proximal": "interpolate"}
    assert loss_of(Told(), two_sequences(), **settings) == pytest.approx(-0.5 * 1.2 - 0.5 * 1 + 2 * 8 * 2)
    assert objective(**settings).proximal(Told(), [[two_sequences()]] * 2) == [[None], [None]]


def test_the_entropy_bonus_counts_by_the_weights_of_tokens_and_has_a_gradient() -> None:
    told = Told()
    loss = objective(entropy_bonus=0.1)(told, two_sequences(), None, Noted(), moved=False)
    plain = loss_of(Told(), two_sequences())
    assert loss.item() == pytest.approx(plain - 0.1 * (0.5 * 1 + 0.5 * 2 + 2 * 3))
    torch.autograd.backward(loss)
    assert told.entropy.grad is not None
    assert told.entropy.grad.tolist() == pytest.approx([-0.05, -0.05, -0.2])
    torch.autograd.backward(objective()(told, two_sequences(), None, Noted(), moved=False))
    assert told.entropy.grad.tolist() == pytest.approx([-0.05, -0.05, -0.2])


@pytest.mark.parametrize(
    ("staleness", "moved", "fresh"),
    [
        ((0, 0, 3), False, [True, True, False]),
        ((0, 1, 0), False, [False, False, True]),  # its second token saw what older weights had cached
        ((0, 0, 0), True, [False, False, False]),
    ],
)
def test_fresh_tokens_are_those_of_sequences_that_the_weights_in_force_sampled(
    staleness: tuple[int, int, int], moved: bool, fresh: list[bool]
) -> None:
    metrics = Noted()
    objective()(Told(), two_sequences(staleness), None, metrics, moved=moved)
    ((*_, found, sequences),) = metrics.given
    assert found.tolist() == fresh
    assert sequences == 2


def test_an_empty_micro_batch_is_run_and_counts_for_nothing() -> None:
    empty = MicroBatch(**{name: getattr(PADDING, name)[:0] for name in MicroBatch.__dataclass_fields__})
    for batch in (empty, PADDING):
        told, metrics = Told(), Noted()
        loss = objective(entropy_bonus=0.1)(told, batch, None, metrics, moved=False)
        torch.autograd.backward(loss)
        assert loss.item() == 0.0
        assert told.logprobs.grad is not None and told.logprobs.grad.abs().max() == 0
        assert metrics.given[0][-1] == 0
        assert metrics.positions == (2, 0)
