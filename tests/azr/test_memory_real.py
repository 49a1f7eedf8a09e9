"""The states of the memory plan against all live tensors of trainer ranks under real DeepSpeed, in a second step.

Between two backward passes, so nothing is gathered; the bucket in which stage 3 reduces, 4 bytes times BUCKET and part
of the plan's reserve, is as large as so small a model. What DeepSpeed calls offloaded is on the same CPU here, so with
offload device and host are compared as one sum; it has two buffers for the gradient of the largest parameter.
"""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from azr.memory import offloaded, states
from common.types import Share
from learner.policy import answer_scores
from learner.trainer import Trainer
from tests.learner.test_trainer_real import batch_of, config_for, micro_batch, run_ranks

pytestmark = pytest.mark.real
VOCABULARY, HIDDEN, INNER = 4096, 512, 1024
LARGEST = VOCABULARY / (VOCABULARY + 4 * HIDDEN + 3 * INNER)  # share of the embedding, norms aside


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Most of it in matrices that stage 3 divides: it keeps those under 100,000 numbers whole."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
            intermediate_size=INNER,
            num_hidden_layers=1,
            num_attention_heads=8,
            num_key_value_heads=8,
            head_dim=64,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    ).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


def held(trainer: Trainer) -> float:
    """Bytes per parameter of all tensors, each storage once, after a backward pass that follows a whole step."""
    zero = trainer.zero
    batch = micro_batch(batch_of(0)[:2])
    trainer.step(Share(0, (batch,)))
    count: int = sum(getattr(p, "ds_numel", p.numel()) for p in zero.policy.parameters())
    with zero.accumulation():
        zero.backward(answer_scores(zero, batch).logprobs.sum(), last=False)
        gc.collect()
        tensors = [found for found in gc.get_objects() if issubclass(type(found), torch.Tensor)]
        tensors += [t.grad for t in tensors if t.is_leaf and t.grad is not None]  # an object only once it is asked for
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        zero.backward(answer_scores(zero, batch).logprobs.sum(), last=True)
    zero.step(0.0)
    held: int = sum(storages.values())
    return held / count


CASES = [(stage, dtype, ranks, False) for dtype in ("float32", "bfloat16") for stage in range(4) for ranks in (1, 2)]
OFFLOADED = [(stage, dtype, 2, True) for dtype in ("float32", "bfloat16") for stage in (1, 3)]


@pytest.mark.parametrize(("stage", "dtype", "ranks", "offload"), CASES + OFFLOADED)
def test_states_are_what_a_rank_holds(
    model: Path, tmp_path: Path, stage: int, dtype: str, ranks: int, offload: bool
) -> None:
    config = config_for(model, stage)
    learner = replace(config.learner, offload_optimizer=offload)
    config = replace(config, model=replace(config.model, dtype=dtype), learner=learner)
    width = {"float32": 4, "bfloat16": 2}[dtype]
    parameters = 10**6
    terms: tuple[Any, ...] = states(parameters, stage, ranks, width, offload=offload)
    if offload:
        terms += offloaded(parameters, stage, ranks, width)
    expected = sum(term.bytes for term in terms if term.name != "gathered") / parameters
    if stage == 3:
        expected += 4
    elif offload:
        expected += 2 * width * LARGEST
        expected -= width if width == 2 else 0  # gradients that a backward pass has added to their sum by now
    for found in run_ranks(held, config, ranks, tmp_path):
        print(f"zero-{stage} {dtype} {ranks} ranks{' offloaded' * offload}: {found:.2f} ({expected:g})")
        assert found == pytest.approx(expected, rel=0.02)
