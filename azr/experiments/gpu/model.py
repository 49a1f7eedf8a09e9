"""A model of random weights in the shape of a published one, made without a network.

    python -m azr.experiments.gpu.model OUT [--shape 0.5b|3b|tiny]

What a model weighs and how long it takes depend on its shape alone, so this is enough to measure and to compare; it
answers nothing right. Its tokenizer is our own (azr/base/tokenizer.py), a few hundred tokens of a vocabulary as large
as the published one: prompts are encoded as always, and most sampled tokens have no text. Matrices are drawn from
N(0, 0.02²) as the published ones were before training, norms are 1 and biases 0. Equal shapes, seeds and devices give
equal weights.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr.cli import run
from common.errors import ConfigError

SPREAD = 0.02
POSITIONS = 32_768


@dataclass(frozen=True, slots=True)
class Form:
    """Of a Qwen2.5 decoder with tied embeddings."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forward: int
    vocabulary: int


FORMS = {
    "0.5b": Form(896, 24, 14, 2, 64, 4864, 151_936),  # Qwen/Qwen2.5-0.5B, config.json
    "3b": Form(2048, 36, 16, 2, 128, 11_008, 151_936),  # Qwen/Qwen2.5-3B, config.json
    "tiny": Form(64, 2, 2, 1, 32, 128, 512),  # vLLM on a CPU wants heads of 32 at least
}


def make(out: Path, shape: str, *, seed: int = 0, dtype: str = "bfloat16", device: str = "cpu") -> None:
    """Write a Hugging Face folder that vLLM loads. ConfigError if `out` exists."""
    if out.exists():
        raise ConfigError(f"{out} exists: name another folder, or remove it")
    import torch
    from safetensors.torch import save_file

    from azr.base import tokenizer
    from azr.base.recipe import Recipe

    model = _skeleton(FORMS[shape], dtype)
    generator = torch.Generator(device).manual_seed(seed)
    tensors: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        tensor = torch.empty(parameter.shape, dtype=torch.float32, device=device)
        if name.endswith("norm.weight"):
            tensor.fill_(1.0)
        elif name.endswith(".bias"):
            tensor.zero_()
        else:
            tensor.normal_(0.0, SPREAD, generator=generator)
        tensors[name] = tensor.to(getattr(torch, dtype)).cpu()
    partial = out.with_name(f".{out.name}")
    partial.mkdir(parents=True, exist_ok=True)
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(partial)
    model.generation_config.save_pretrained(partial)
    tokenizer.save(tokenizer.train(Recipe()), partial)
    partial.rename(out)


def _skeleton(form: Form, dtype: str) -> Any:
    """Without storage. Control tokens are those of the tokenizer: padding 0, end 1, begin 2."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=form.vocabulary,
        hidden_size=form.hidden,
        intermediate_size=form.feed_forward,
        num_hidden_layers=form.layers,
        num_attention_heads=form.heads,
        num_key_value_heads=form.kv_heads,
        head_dim=form.head_dim,
        max_position_embeddings=POSITIONS,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        dtype=dtype,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=2,
    )
    with torch.device("meta"):
        return Qwen2ForCausalLM(config)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m azr.experiments.gpu.model", description="A model of random weights in a published shape."
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("--shape", choices=sorted(FORMS), default="0.5b", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16", help="default: %(default)s")
    parser.add_argument("--device", default="cpu", help="where weights are drawn (default: %(default)s)")
    parsed = parser.parse_args(arguments)

    def command() -> int:
        make(parsed.out, parsed.shape, seed=parsed.seed, dtype=parsed.dtype, device=parsed.device)
        print(f"{parsed.out}: {parsed.shape}, {(parsed.out / 'model.safetensors').stat().st_size / 2**20:,.0f} MiB")
        return 0

    return run(command)


if __name__ == "__main__":
    sys.exit(main())
