"""What learner.head_float32 changes: logits of a bfloat16 model without a second rounding, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from learner.policy import load_policy

VOCABULARY = 300
IDS = torch.arange(24).reshape(2, 12)


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With logits up to about 20, as trained models have them."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    net = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=1,
            num_attention_heads=4,
            num_key_value_heads=2,
            tie_word_embeddings=request.param,
        )
    )
    with torch.no_grad():
        net.get_output_embeddings().weight.normal_()
    net.save_pretrained(folder)
    return folder


def scores(folder: Path, dtype: torch.dtype, *, head_float32: bool, head_parts: int = 1) -> torch.Tensor:
    policy = load_policy(folder, dtype, head_float32=head_float32, head_parts=head_parts)
    with torch.no_grad():
        found: torch.Tensor = policy(IDS, torch.arange(20), torch.arange(100, 120)).logprobs
    return found


def test_logits_are_those_of_exact_products(model: Path) -> None:
    policy = load_policy(model, torch.bfloat16)
    with torch.no_grad():
        hidden = policy.model.base_model(input_ids=IDS, use_cache=False).last_hidden_state.flatten(0, 1)[:20]
        logits = hidden.double() @ policy.model.get_output_embeddings().weight.double().T
    exact = logits.log_softmax(-1).gather(1, torch.arange(100, 120)[:, None])[:, 0]
    ours = scores(model, torch.bfloat16, head_float32=True)
    rounded = scores(model, torch.bfloat16, head_float32=False)
    assert ours.dtype == torch.float32
    assert float((ours - exact).abs().max()) < 1e-4
    assert float((rounded - exact).abs().max()) > 1e-2, "there was nothing to be gained"


def test_a_float32_model_is_as_it_was(model: Path) -> None:
    plain, cast = (scores(model, torch.float32, head_float32=on) for on in (False, True))
    assert torch.equal(plain, cast)


def test_parameters_keep_names_and_precision_and_get_the_gradient(model: Path) -> None:
    plain, cast = (load_policy(model, torch.bfloat16, head_float32=on, head_parts=2) for on in (False, True))
    assert [n for n, _ in cast.model.named_parameters()] == [n for n, _ in plain.model.named_parameters()]
    for policy in (plain, cast):
        torch.autograd.backward(policy(IDS, torch.arange(20), torch.arange(100, 120)).logprobs.sum())
    for (name, ours), (_, theirs) in zip(cast.model.named_parameters(), plain.model.named_parameters(), strict=True):
        assert ours.dtype == torch.bfloat16 and ours.grad is not None and theirs.grad is not None
        apart = (ours.grad.float() - theirs.grad.float()).norm() / theirs.grad.float().norm()
        assert float(apart) < 0.05, name
