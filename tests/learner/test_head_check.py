"""Which models have logits that are no more than their output embedding of the last hidden state."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GraniteConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
)

from common.errors import PartFailed
from learner.attention import PACKED
from learner.policy import Policy, load_policy, require_bare_head

SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}


def trained_like(model: PreTrainedModel) -> PreTrainedModel:
    """Logits of 10 to 30, as trained models have them."""
    with torch.no_grad():
        model.get_output_embeddings().weight.normal_(generator=torch.Generator().manual_seed(0))
    return model


class ByRows(torch.nn.Linear):
    """A head whose rounding depends on how many rows there are, as that of a product on a GPU or CPU may."""

    def forward(self, hidden: Tensor) -> Tensor:
        rows = hidden.numel() // hidden.shape[-1]
        found: Tensor = super().forward(hidden) * (1 + 2 ** -(5 + rows))
        return found


@pytest.mark.parametrize("packing", [False, True])
def test_what_rounding_makes_of_products_of_other_shapes_is_no_matter(packing: bool) -> None:
    model = trained_like(LlamaForCausalLM(LlamaConfig(**SIZES)))
    head = ByRows(64, 300, bias=False)
    head.weight = model.get_output_embeddings().weight
    model.set_output_embeddings(head)
    if packing:
        model.set_attn_implementation(PACKED)
    require_bare_head(Policy(model), Path("nowhere"), packing=packing)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_with_large_logits_is_loaded(dtype: torch.dtype, packing: bool, tmp_path: Path) -> None:
    trained_like(LlamaForCausalLM(LlamaConfig(**SIZES))).save_pretrained(tmp_path)
    for head_float32 in (False, True):
        load_policy(tmp_path, dtype, packing=packing, head_float32=head_float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize(
    "config",
    [
        CohereConfig(**SIZES, logit_scale=0.5),
        GraniteConfig(**SIZES, logits_scaling=2.0),
        Gemma2Config(**SIZES, head_dim=16, final_logit_softcapping=0.3),
    ],
    ids=["scaled", "divided", "capped"],
)
def test_scaled_and_capped_logits_are_refused(
    config: PretrainedConfig, large: bool, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Also where weights are small, as before training, and all tokens about equally likely."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    (trained_like(model) if large else model).save_pretrained(tmp_path)
    with pytest.raises(PartFailed, match="more than its output embedding"):
        load_policy(tmp_path, dtype)
