"""The losses, by hand: every expected number below can be checked with a pocket calculator."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.config import LearnerConfig
from learner.loss import LOSSES, MAX_LOG_RATIO, ppo, probability_ratio, reinforce


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([math.log(p) for p in probabilities])


def test_every_configurable_loss_exists() -> None:
    assert set(LOSSES) == {"ppo", "reinforce"}
    assert LearnerConfig().loss in LOSSES


def test_reinforce_is_minus_advantage_times_log_probability() -> None:
    loss, statistics = reinforce(logs(0.5, 0.25), logs(0.1, 0.9), torch.tensor([2.0, -1.0]))
    assert loss.tolist() == pytest.approx([2 * math.log(2), -math.log(4)])
    assert statistics == {}


def test_ppo_clips_only_what_would_go_further() -> None:
    #       grows, good | grows, bad | shrinks, good | shrinks, bad | inside the range
    now = logs(0.6, 0.6, 0.2, 0.2, 0.44)
    then = logs(0.4, 0.4, 0.4, 0.4, 0.4)
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 3.0])
    loss, statistics = ppo(now, then, advantages, clip=0.2)
    assert loss.tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8, -3.3], rel=1e-5)
    assert statistics["clipped"].tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]


def test_ppo_gradient_is_ratio_times_advantage_where_free_and_nothing_where_clipped() -> None:
    now = logs(0.6, 0.6, 0.2, 0.2, 0.44).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 1.0, -1.0, 3.0])
    torch.autograd.backward(ppo(now, logs(0.4, 0.4, 0.4, 0.4, 0.4), advantages, clip=0.2).loss.sum())
    assert now.grad is not None
    assert now.grad.tolist() == pytest.approx([0.0, 1.5, -0.5, 0.0, -3.3], rel=1e-5)


def test_ppo_on_policy_has_the_gradient_of_reinforce() -> None:
    advantages = torch.tensor([0.7, -0.3, 1.1])
    gradients = []
    for name in ("ppo", "reinforce"):
        now = logs(0.1, 0.5, 0.9).requires_grad_()
        torch.autograd.backward(LOSSES[name](now, now.detach(), advantages, clip=0.2).loss.sum())
        assert now.grad is not None
        gradients.append(now.grad)
    torch.testing.assert_close(gradients[0], gradients[1])


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    now = (-3 * torch.rand(16, generator=generator, dtype=torch.float64)).requires_grad_()
    then = now.detach() + 0.6 * torch.rand(16, generator=generator, dtype=torch.float64) - 0.3
    advantages = torch.randn(16, generator=generator, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](x, then, advantages, clip=0.2).loss, (now,))


@given(st.lists(st.tuples(*[st.floats(-1e4, 0, width=32)] * 2, st.floats(-10, 10, width=32)), min_size=1, max_size=8))
def test_losses_and_gradients_are_finite_for_any_finite_log_probs(
    rows: list[tuple[float, float, float]],
) -> None:
    for loss in LOSSES.values():
        now, then, advantages = torch.tensor(rows).unbind(1)
        now = now.clone().requires_grad_()
        value = loss(now, then, advantages, clip=0.2).loss
        torch.autograd.backward(value.sum())
        assert now.grad is not None
        assert value.isfinite().all()
        assert now.grad.isfinite().all()


def test_ratio_is_bounded() -> None:
    ratio = probability_ratio(torch.tensor([0.0, -1e4]), torch.tensor([-1e4, 0.0]))
    assert ratio.tolist() == pytest.approx([math.exp(MAX_LOG_RATIO), math.exp(-MAX_LOG_RATIO)])
