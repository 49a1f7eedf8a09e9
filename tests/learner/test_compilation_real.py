"""Compiled layers and scores against the same ones run eagerly; and the graph that a GPU would get, without one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._dynamo.utils import counters
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PretrainedConfig,
    Qwen2Config,
    Qwen2ForCausalLM,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from common.config import load
from common.errors import ConfigError
from learner.attention import PACKED
from learner.compilation import fused_scores
from learner.policy import Policy, answer_scores, load_policy
from tests.learner.test_packing_real import SIZES, gradients, lengths_of
from tests.learner.test_trainer_real import micro_batch

# Dynamo asks tensors for what they do not have, and hides the warning only where warnings are no errors.
pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")]


def test_a_compiled_policy_equals_an_eager_one_and_compiles_once_for_all_layers_and_sizes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    Qwen2ForCausalLM(Qwen2Config(**SIZES)).save_pretrained(tmp_path)
    eager, compiled = (
        load_policy(tmp_path, packing=True, checkpoint_activations=True, head_parts=2, compiled=compiled)
        for compiled in (False, True)
    )
    torch.compiler.reset()
    graphs = []
    for seed in range(3):
        batch = micro_batch(lengths_of(np.random.default_rng(seed)))
        counters.clear()
        found = []
        for policy in (eager, compiled):
            scores = answer_scores(policy, batch, packing=True)
            found.append((*scores, gradients(policy, scores.logprobs.sum())))
        graphs.append(counters["stats"]["unique_graphs"])
        for wanted, ours, tolerance in zip(*found, (5e-6, 1e-5, 1e-4), strict=True):
            torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=tolerance)
    assert graphs[0] > 0
    assert graphs[1:] == [0, 0]


@pytest.mark.parametrize(
    ("config", "checkpointed"),
    [(Qwen2Config(**SIZES | {"hidden_size": 64}), True), (LlamaConfig(**SIZES, head_dim=8), False)],
    ids=lambda value: getattr(value, "model_type", None),
)
def test_half_precision_off_the_cpu_is_one_graph_with_the_kernel_in_it(
    config: PretrainedConfig, checkpointed: bool
) -> None:
    """On torch's meta device, where operators compute shapes alone: `fullgraph` fails at the first break."""
    torch.compiler.reset()
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        rows = {n: torch.zeros(1, n, dtype=torch.long) for n in (30, 50)}
        bounds = {n: torch.zeros(n // 10 + 1, dtype=torch.int32) for n in rows}
        chosen = torch.zeros(9, dtype=torch.long)
    model.set_attn_implementation(PACKED)
    if checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        model.train()
    for layer in model.modules():
        if isinstance(layer, GradientCheckpointingLayer):
            layer.compile(dynamic=True, fullgraph=True, backend="aot_eager")
    counters.clear()
    for n, row in rows.items():
        scores = Policy(model)(row, chosen, chosen, row, bounds=bounds[n], longest=n // 5)
        assert scores.logprobs.shape == (9,)
        found = torch.autograd.grad(scores.logprobs.sum(), list(model.parameters()))
        assert [g.shape for g in found] == [p.shape for p in model.parameters()]
    assert counters["stats"]["unique_graphs"] == 1


@settings(max_examples=20)
@given(st.integers(0, 1 << 16), st.booleans(), st.sampled_from([torch.float32, torch.bfloat16]))
def test_fused_scores_are_log_softmax_and_its_entropy(seed: int, entropy_gradient: bool, dtype: torch.dtype) -> None:
    """The formula, uncompiled; its gradient, too."""
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(5, 11, generator=generator)).to(dtype).requires_grad_()
    targets = torch.randint(11, (5,), generator=generator)
    with torch.compiler.set_stance("force_eager"):
        logprobs, entropy = fused_scores(logits, targets, entropy_gradient)
    every = logits.float().log_softmax(-1)
    wanted, spread = every.gather(1, targets[:, None]).squeeze(1), -(every.exp() * every).sum(-1)
    torch.testing.assert_close(logprobs, wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(entropy, spread, rtol=1e-5, atol=1e-5)
    assert entropy.requires_grad == entropy_gradient
    (ours,) = torch.autograd.grad(logprobs.sum() + 3 * entropy.sum(), logits)
    (theirs,) = torch.autograd.grad(wanted.sum() + 3 * spread.sum() * entropy_gradient, logits)
    torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("entropy_gradient", [False, True])
def test_of_compiled_scores_the_logits_are_kept_as_they_came_and_a_number_per_token(entropy_gradient: bool) -> None:
    """What azr/memory.py reckons with."""
    kept: list[torch.Size] = []
    logits = torch.randn(7, 300, dtype=torch.bfloat16, requires_grad=True)

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() != logits.untyped_storage().data_ptr():
            kept.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fused_scores(logits, torch.arange(7), entropy_gradient)
    assert sorted(kept) == [(7,), (7, 1)]  # the targets, the log-sum-exp


def test_fused_scores_by_hand() -> None:
    logits = torch.tensor([[0.0, math.log(3.0)], [1.0, 1.0]])
    with torch.compiler.set_stance("force_eager"):
        logprobs, entropy = fused_scores(logits, torch.tensor([1, 0]), False)
    assert logprobs.tolist() == pytest.approx([math.log(0.75), math.log(0.5)])
    assert entropy.tolist() == pytest.approx([-0.25 * math.log(0.25) - 0.75 * math.log(0.75), math.log(2.0)])


def test_compiling_under_zero_3_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner\.compile does not go with learner\.zero_stage 3"):
        load("tiny.yaml", ["learner.compile=true", "learner.zero_stage=3"])
