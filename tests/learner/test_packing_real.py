"""Packed rows through a real model: scores, gradients and trained weights are those of sequences that go alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    BioGptConfig,
    BioGptForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from common.config import Config
from common.errors import PartFailed
from learner.policy import Policy, answer_scores, load_policy, score
from tests.learner.test_minibatches_real import reference as corrected_reference
from tests.learner.test_minibatches_real import settings_for
from tests.learner.test_minibatches_real import train as train_in_parts
from tests.learner.test_trainer_real import (
    DIVISIONS,
    SEQUENCES,
    VOCABULARY,
    Outcome,
    Resumed,
    Sequence,
    assert_bit_equal,
    batch_of,
    config_for,
    micro_batch,
    model,
    reference,
    run_ranks,
    train_and_resume,
)

__all__ = ["model"]  # the fixture
pytestmark = pytest.mark.real

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def lengths_of(random: np.random.Generator) -> list[Sequence]:
    def one() -> Sequence:
        prompt, answer = (random.integers(0, VOCABULARY, random.integers(1, 30)).astype(np.int32) for _ in "pa")
        return Sequence(prompt, answer, np.zeros(len(answer), np.float32), 1.0, 1.0)

    return [one() for _ in range(random.integers(1, 10))]


def gradients(policy: Policy, total: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, list(policy.parameters()))])


@pytest.mark.parametrize("sparing", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_scores_and_gradients_are_those_of_padded_rows(model: Path, seed: int, sparing: bool) -> None:
    """In float32, to rounding: the same sums in another order. With entropy in the loss, as the bonus has it."""
    batch = micro_batch(lengths_of(np.random.default_rng(seed)))
    found = []
    for packing in (False, True):
        policy = load_policy(
            model, entropy_gradient=True, head_parts=1 + 2 * sparing, checkpoint_activations=sparing, packing=packing
        )
        scores = answer_scores(policy, batch, packing=packing)
        found.append((*scores, gradients(policy, scores.logprobs.sum() + scores.entropy.square().sum())))
    for padded, packed, tolerance in zip(*found, (2e-6, 5e-6, 1e-4), strict=True):
        torch.testing.assert_close(packed, padded, rtol=1e-4, atol=tolerance)


@pytest.mark.parametrize(
    "family",
    [
        LlamaForCausalLM(LlamaConfig(**SIZES)),
        Qwen2ForCausalLM(Qwen2Config(**SIZES)),
        MistralForCausalLM(MistralConfig(**SIZES, sliding_window=None)),
    ],
    ids=lambda family: type(family).__name__,
)
def test_other_families_pack_as_well(family: PreTrainedModel, tmp_path: Path) -> None:
    family.save_pretrained(tmp_path)
    batch = micro_batch(batch_of(1))
    padded, packed = (
        answer_scores(load_policy(tmp_path, packing=packing), batch, packing=packing) for packing in (False, True)
    )
    torch.testing.assert_close(packed.logprobs, padded.logprobs, rtol=0, atol=5e-6)


def test_no_sequence_sees_another(model: Path) -> None:
    """Other tokens in one leave the log-probs of all others bit-equal."""
    policy, sequences = load_policy(model, packing=True), batch_of(0)
    for changed in (0, 5, SEQUENCES - 1):
        answer = (sequences[changed].answer + 1) % VOCABULARY
        other = [*sequences]
        other[changed] = replace(sequences[changed], prompt=(sequences[changed].prompt + 7) % VOCABULARY, answer=answer)
        with torch.no_grad():
            before, after = (
                answer_scores(policy, micro_batch(each), packing=True).logprobs for each in (sequences, other)
            )
        owner = np.repeat(np.arange(SEQUENCES), [len(s.answer) for s in sequences])
        same = torch.from_numpy(owner != changed)
        assert torch.equal(before[same], after[same])
        assert not torch.isclose(before[~same], after[~same]).any()


def test_sequences_are_scored_as_when_padded(model: Path) -> None:
    """Also those of one token and none, and ones longer than the budget."""
    sequences = [np.concatenate([s.prompt, s.answer]) for s in batch_of(0)]
    sequences += [np.array([3], np.int32), np.zeros(0, np.int32), np.arange(60, dtype=np.int32)]
    padded, packed = (
        score(load_policy(model, packing=packing), sequences, tokens=40, packing=packing) for packing in (False, True)
    )
    assert [len(s) for s in packed] == [len(s) for s in padded]
    for one, other in zip(packed, padded, strict=True):
        np.testing.assert_allclose(one, other, atol=3e-6)


def packed(config: Config) -> Config:
    return replace(config, learner=replace(config.learner, packing=True))


@pytest.mark.parametrize(
    ("division", "stage", "sparing"),
    [("1x4", 0, False), ("uneven", 2, False), ("idle rank", 2, True), ("uneven", 3, False), ("uneven", 3, True)],
)
def test_training_equals_plain_pytorch(model: Path, tmp_path: Path, division: str, stage: int, sparing: bool) -> None:
    config = packed(config_for(model, stage, sparing=sparing))
    ranks: list[Resumed] = run_ranks(train_and_resume, config, len(DIVISIONS[division]), tmp_path, division)
    expected, first = reference(model, config), ranks[0]
    assert_alike(first.whole, expected, config.learner.lr)
    assert_bit_equal(Outcome(first.whole.metrics[1:], first.whole.weights, first.whole.moments), first.rest)
    inputs = [sum(len(s.prompt) + len(s.answer) - 1 for s in batch_of(step)) for step in range(3)]
    empty = 2 * sum(size == 0 for sizes in DIVISIONS[division] for size in sizes)  # PADDING has two positions
    for metrics, count in zip(first.whole.metrics, inputs, strict=True):
        assert metrics["padding"] == pytest.approx(empty / (count + empty))
    for rank in ranks[1:]:
        assert rank.whole.metrics == first.whole.metrics


def test_proximal_reference_and_entropy_work_on_packed_rows(model: Path, tmp_path: Path) -> None:
    config = packed(settings_for(model, 2, loss="decoupled", entropy_bonus=0.01, kl=0.1))
    ours = run_ranks(train_in_parts, config, 2, tmp_path, "2")[0]
    assert_alike(ours, corrected_reference(model, config.learner), config.learner.lr)


def assert_alike(ours: Outcome, expected: Outcome, lr: float) -> None:
    """As of the padded path: tests/learner/test_trainer_real.py."""
    for wanted, found in zip(expected.metrics, ours.metrics, strict=True):
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    for name, weight in expected.weights.items():
        np.testing.assert_allclose(ours.moments[name], expected.moments[name], atol=1e-7, rtol=1e-4, err_msg=name)
        np.testing.assert_allclose(ours.weights[name], weight, atol=0.01 * lr, err_msg=name)


@pytest.mark.parametrize(
    ("family", "why"),
    [
        (MistralForCausalLM(MistralConfig(**SIZES, sliding_window=8)), "sliding_window"),
        (Gemma2ForCausalLM(Gemma2Config(**SIZES, head_dim=12, layer_types=["full_attention"] * 2)), "softcap"),
        (BioGptForCausalLM(BioGptConfig(**SIZES)), "attention of its own"),
    ],
    ids=["window", "softcap", "own attention"],
)  # fmt: skip
def test_what_bounds_do_not_cover_is_refused(family: PreTrainedModel, why: str, tmp_path: Path) -> None:
    family.save_pretrained(tmp_path)
    with pytest.raises(PartFailed, match=why) as failure:
        load_policy(tmp_path, packing=True)
    assert failure.value.hint == "learner.packing=false"


def test_a_packed_model_takes_no_padded_rows(model: Path) -> None:
    with pytest.raises(NotImplementedError, match="no bounds"):
        answer_scores(load_policy(model, packing=True), micro_batch(batch_of(0)))
