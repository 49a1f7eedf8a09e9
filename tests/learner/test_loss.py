"""The losses, by hand: every expected number below can be checked with a pocket calculator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common import off_policy
from common.off_policy import OffPolicyConfig
from learner.loss import LOSSES, MAX_LOG_RATIO, Tokens, interpolated, kl_k3, probability_ratio

from learner.loss import aipo, cispo, decoupled, gspo, icepop, ppo, reinforce, tis  # isort: skip

DEFAULT = OffPolicyConfig(clip=0.2)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([math.log(p) for p in probabilities])


def given_tokens(
    now: torch.Tensor,
    then: torch.Tensor,
    advantages: Sequence[float],
    proximal: torch.Tensor | None = None,
    lengths: Sequence[int] = (),
) -> Tokens:
    """One sequence, and a step that has just begun, unless told otherwise."""
    return Tokens(
        now,
        then,
        now.detach() if proximal is None else proximal,
        torch.tensor(advantages, dtype=now.dtype),
        torch.tensor(lengths or [len(now)]),
    )


def gradient(name: str, tokens: Tokens, settings: OffPolicyConfig = DEFAULT) -> list[float]:
    now = tokens.logprobs.detach().requires_grad_()
    torch.autograd.backward(LOSSES[name](tokens._replace(logprobs=now), settings).loss.sum())
    assert now.grad is not None
    found: list[float] = now.grad.tolist()
    return found


def test_every_configurable_loss_exists() -> None:
    assert tuple(LOSSES) == off_policy.LOSSES
    assert set(off_policy.ANCHORED) < set(LOSSES)
    assert OffPolicyConfig().loss in LOSSES


def test_reinforce_is_minus_advantage_times_log_probability() -> None:
    loss, statistics = reinforce(given_tokens(logs(0.5, 0.25), logs(0.1, 0.9), [2.0, -1.0]), DEFAULT)
    assert loss.tolist() == pytest.approx([2 * math.log(2), -math.log(4)])
    assert statistics == {}


#       grows, good | grows, bad | shrinks, good | shrinks, bad | inside the range
MOVED, FROM, ADVANTAGES = logs(0.6, 0.6, 0.2, 0.2, 0.44), logs(0.4, 0.4, 0.4, 0.4, 0.4), [1.0, -1.0, 1.0, -1.0, 3.0]


def test_ppo_clips_only_what_would_go_further() -> None:
    tokens = given_tokens(MOVED, FROM, ADVANTAGES)
    loss, statistics = ppo(tokens, DEFAULT)
    assert loss.tolist() == pytest.approx([-1.2, 1.5, -0.5, 0.8, -3.3], rel=1e-5)
    assert statistics["clipped"].tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]
    # ratio times advantage where free and nothing where clipped
    assert gradient("ppo", tokens) == pytest.approx([0.0, 1.5, -0.5, 0.0, -3.3], rel=1e-5)


def test_decoupled_clips_round_the_proximal_policy_and_weighs_by_how_far_that_is_from_the_sampler() -> None:
    """The step has moved as above from 0.4. Tokens were sampled with 0.2, so they weigh 2; the last one with 0.05."""
    sampled = logs(0.2, 0.2, 0.2, 0.2, 0.05)
    tokens = given_tokens(MOVED, sampled, ADVANTAGES, proximal=FROM)
    loss, statistics = decoupled(tokens, DEFAULT)
    assert loss.tolist() == pytest.approx([-2.4, 3.0, -1.0, 1.6, 0.0], rel=1e-5)
    assert statistics["clipped"].tolist() == [1.0, 0.0, 0.0, 1.0, 0.0]
    assert statistics["masked"].tolist() == [0.0, 0.0, 0.0, 0.0, 1.0]  # 8 > 5
    assert gradient("decoupled", tokens) == pytest.approx([0.0, 3.0, -1.0, 0.0, 0.0], rel=1e-5)
    wide = OffPolicyConfig(clip=0.2, decoupled_cap=10)
    assert decoupled(tokens, wide).loss.tolist()[4] == pytest.approx(-26.4, rel=1e-5)  # 8 · 3.3


def test_truncated_importance_sampling_cuts_the_weight_and_keeps_the_token() -> None:
    """Weights 0.4 / 0.1 = 4, cut to 2; 0.4 / 0.8 = ½; 4 again, where the clip of the step acts, too."""
    tokens = given_tokens(logs(0.44, 0.44, 0.6), logs(0.1, 0.8, 0.1), [1.0, 1.0, 1.0], proximal=logs(0.4, 0.4, 0.4))
    loss, statistics = tis(tokens, DEFAULT)
    assert loss.tolist() == pytest.approx([-2.2, -0.55, -2.4], rel=1e-5)
    assert statistics["truncated"].tolist() == [1.0, 0.0, 1.0]
    assert statistics["clipped"].tolist() == [0.0, 0.0, 1.0]
    assert gradient("tis", tokens) == pytest.approx([-2.2, -0.55, 0.0], rel=1e-5)


def test_icepop_leaves_out_what_is_outside_its_band() -> None:
    """Weights 0.4 / 0.05 = 8 and 0.4 / 0.9 = 0.44 are outside ½ … 5; 0.4 / 0.1 = 4 is inside."""
    tokens = given_tokens(logs(0.44, 0.44, 0.44), logs(0.05, 0.9, 0.1), [1.0, 1.0, -1.0], proximal=logs(0.4, 0.4, 0.4))
    loss, statistics = icepop(tokens, DEFAULT)
    assert loss.tolist() == pytest.approx([0.0, 0.0, 4.4], rel=1e-5)
    assert statistics["masked"].tolist() == [1.0, 1.0, 0.0]
    assert gradient("icepop", tokens) == pytest.approx([0.0, 0.0, 4.4], rel=1e-5)


def test_cispo_bounds_the_weight_of_a_plain_policy_gradient() -> None:
    """Ratios 0.6 / 0.1 = 6, cut to 5; 0.2 / 0.4 = ½, free, or 0.8 with a lower bound."""
    tokens = given_tokens(logs(0.6, 0.2), logs(0.1, 0.4), [2.0, -1.0])
    loss, statistics = cispo(tokens, DEFAULT)
    assert loss.tolist() == pytest.approx([-10 * math.log(0.6), 0.5 * math.log(0.2)])
    assert statistics["truncated"].tolist() == [1.0, 0.0]
    assert gradient("cispo", tokens) == pytest.approx([-10.0, 0.5])
    assert gradient("cispo", tokens, OffPolicyConfig(cispo_low=0.8, cispo_high=1.2)) == pytest.approx([-2.4, 0.8])


def test_aipo_cuts_the_weight_on_one_side() -> None:
    tokens = given_tokens(logs(0.6, 0.001), logs(0.1, 0.4), [2.0, -1.0])
    loss, statistics = aipo(tokens, DEFAULT)
    assert loss.tolist() == pytest.approx([-10 * math.log(0.6), 0.0025 * math.log(0.001)])
    assert statistics["truncated"].tolist() == [1.0, 0.0]
    assert gradient("aipo", tokens) == pytest.approx([-10.0, 0.0025])
    assert gradient("aipo", tokens) == gradient("cispo", tokens)


def test_gspo_judges_a_sequence_by_the_geometric_mean_of_its_ratios() -> None:
    """Ratios 2 and 0.72: √1.44 = 1.2 for both tokens. The second sequence has 1.5, outside 0.9 … 1.3."""
    tokens = given_tokens(logs(0.4, 0.36, 0.6), logs(0.2, 0.5, 0.4), [2.0, 2.0, 1.0], lengths=[2, 1])
    settings = OffPolicyConfig(gspo_clip_low=0.1, gspo_clip_high=0.3)
    loss, statistics = gspo(tokens, settings)
    assert loss.tolist() == pytest.approx([-2.4, -2.4, -1.3], rel=1e-5)
    assert statistics["clipped"].tolist() == [0.0, 0.0, 1.0]
    # Both token losses depend on both log-probs, by half of 2.4 each.
    assert gradient("gspo", tokens, settings) == pytest.approx([-2.4, -2.4, 0.0], rel=1e-5)
    both_clipped = OffPolicyConfig(gspo_clip_low=0.1, gspo_clip_high=0.1)
    assert gspo(tokens, both_clipped).statistics["clipped"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("name", LOSSES)
def test_on_policy_every_loss_has_the_gradient_of_reinforce(name: str) -> None:
    now = logs(0.1, 0.5, 0.9, 0.3)
    tokens = given_tokens(now, now, [0.7, -0.3, 1.1, 1.1], lengths=[1, 1, 2])
    assert gradient(name, tokens) == pytest.approx(gradient("reinforce", tokens))


def test_with_one_step_per_batch_decoupled_and_truncated_coincide_up_to_where_they_cut_and_no_clip_acts() -> None:
    """Ratios ½, 1.5, 1.9: below every cut. 3: only TIS cuts. 6: all do, two of them to nothing."""
    sampled = logs(0.8, 0.4, 0.1, 0.2, 0.05)
    now = logs(0.4, 0.6, 0.19, 0.6, 0.3)
    tokens = given_tokens(now, sampled, [1.0, -1.0, 1.0, 1.0, 1.0])
    free = [-0.5, 1.5, -1.9, -3.0, -6.0]
    assert gradient("tis", tokens) == pytest.approx([*free[:3], -2.0, -2.0], rel=1e-5)
    assert gradient("decoupled", tokens) == pytest.approx([*free[:4], 0.0], rel=1e-5)
    assert gradient("icepop", tokens) == pytest.approx([*free[:4], 0.0], rel=1e-5)
    assert gradient("aipo", tokens) == gradient("cispo", tokens) == pytest.approx([*free[:4], -5.0], rel=1e-5)
    wide = OffPolicyConfig(decoupled_cap=10, tis_cap=10, icepop_high=10, aipo_cap=10, cispo_high=10)
    for name in ("decoupled", "tis", "icepop", "aipo", "cispo"):
        assert gradient(name, tokens, wide) == pytest.approx(free, rel=1e-5)
    for name in off_policy.ANCHORED:
        assert gradient(name, tokens, OffPolicyConfig(clip=0.01)) == gradient(name, tokens)
    # PPO on the sampler's log-probs is another loss: it has no gradient where the ratio has gone where A points.
    assert gradient("ppo", tokens) == pytest.approx([-0.5, 1.5, 0.0, 0.0, 0.0], rel=1e-5)


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"cispo", "aipo"}))  # their weight is a constant by definition
def test_gradient_agrees_with_finite_differences(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    now = (-3 * torch.rand(16, generator=generator, dtype=torch.float64)).requires_grad_()
    then, proximal = (
        now.detach() + 0.6 * torch.rand(16, generator=generator, dtype=torch.float64) - 0.3 for _ in range(2)
    )
    advantages = torch.randn(16, generator=generator, dtype=torch.float64)
    tokens = Tokens(now, then, proximal, advantages, torch.tensor([5, 1, 10]))
    assert torch.autograd.gradcheck(lambda x: LOSSES[name](tokens._replace(logprobs=x), DEFAULT).loss, (now,))


@given(st.lists(st.tuples(*[st.floats(-1e4, 0, width=32)] * 3, st.floats(-10, 10, width=32)), min_size=1, max_size=8))
def test_losses_and_gradients_are_finite_for_any_finite_log_probs(
    rows: list[tuple[float, float, float, float]],
) -> None:
    now, then, proximal, advantages = torch.tensor(rows).unbind(1)
    tokens = Tokens(now, then, proximal, advantages, torch.tensor([len(rows)]))
    for name, loss in LOSSES.items():
        assert loss(tokens, DEFAULT).loss.isfinite().all()
        assert all(map(math.isfinite, gradient(name, tokens)))
    assert kl_k3(now, then).isfinite().all()


def test_ratio_is_bounded() -> None:
    ratio = probability_ratio(torch.tensor([0.0, -1e4]), torch.tensor([-1e4, 0.0]))
    assert ratio.tolist() == pytest.approx([math.exp(MAX_LOG_RATIO), math.exp(-MAX_LOG_RATIO)])


def test_k3_by_hand_and_as_an_estimate_of_the_divergence() -> None:
    now = logs(0.5, 0.25, 0.25).requires_grad_()
    reference = logs(0.25, 0.25, 0.5)
    found = kl_k3(now, reference)
    # x = ½, 1, 2: x − log x − 1
    assert found.tolist() == pytest.approx([math.log(2) - 0.5, 0.0, 1 - math.log(2)], abs=1e-6)
    mean = (now.detach().exp() * found.detach()).sum()
    assert float(mean) == pytest.approx(0.25 * math.log(2))  # ½ log 2 − ¼ log 2
    torch.autograd.backward(found.sum())
    assert now.grad is not None
    assert now.grad.tolist() == pytest.approx([0.5, 0.0, -1.0], abs=1e-6)


def test_the_interpolated_proximal_is_the_sampler_on_fresh_tokens_and_nears_the_policy_with_age() -> None:
    now = logs(1.0, 1.0, 1.0, 1.0).requires_grad_()
    found = interpolated(now, logs(1 / 16, 1 / 16, 1 / 16, 1 / 16), torch.tensor([0, 1, 3, 999]))
    assert found.exp().tolist() == pytest.approx([1 / 16, 1 / 4, 1 / 2, 1.0], rel=1e-2)
    assert not found.requires_grad
