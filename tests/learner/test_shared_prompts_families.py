"""For which model families answers may share a row: where a token sees all that stands before it, in every layer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    JambaConfig,
    LlamaConfig,
    MambaConfig,
    MistralConfig,
    MistralForCausalLM,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    RecurrentGemmaConfig,
)

from common.errors import PartFailed
from learner.attention import apart
from learner.policy import load_policy


@pytest.mark.parametrize(
    "config", [Qwen3Config(), Qwen2Config(), LlamaConfig(), GPT2Config(), MistralConfig(sliding_window=None)]
)
def test_full_attention_forbids_nothing(config: PretrainedConfig) -> None:
    assert apart(config) == []


@pytest.mark.parametrize(
    ("config", "why"),
    [
        (MistralConfig(), "sliding_window"),
        (Qwen2Config(use_sliding_window=True, sliding_window=8, max_window_layers=1), "sliding_attention"),
        (Gemma3TextConfig(), "sliding_attention"),
        (GPTNeoConfig(), "window_size"),
        (MambaConfig(), "linear_attention"),
        (JambaConfig(), "linear_attention"),
        (RecurrentGemmaConfig(), "block_types"),
    ],
)
def test_windows_and_layers_that_are_no_attention_forbid_it(config: PretrainedConfig, why: str) -> None:
    assert why in apart(config)


def test_a_model_with_a_window_is_refused_only_where_prompts_are_shared(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {"vocab_size": 16, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=8)).save_pretrained(tmp_path)
    load_policy(tmp_path)
    with pytest.raises(
        PartFailed, match=r"MistralForCausalLM cannot train several answers in one row \(sliding_window"
    ):
        load_policy(tmp_path, share_prompts=True)
