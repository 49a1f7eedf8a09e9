"""Pre-training of the base model: next-token loss on responses, a fixed number of steps, one thread.

Invariants: equal (recipe, library versions, machine) give equal weights; the caller's random state and thread
count are left as they were. Not guaranteed: equal weights across processors.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from transformers import Qwen3Config, Qwen3ForCausalLM

from azr.base.recipe import Recipe
from azr.base.text import Text
from azr.base.tokenizer import BOS, EOS, PAD

LOG_SECONDS = 5.0
_CURVE = 50  # steps per point of the loss curve

Example = tuple[list[int], list[int]]  # tokens of prompt and response
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # see `batch`


@dataclass(frozen=True)
class Trained:
    """`losses` are means over 50 steps each; `tokens` counts padding, `seconds` is CPU time."""

    model: Any
    losses: tuple[float, ...]
    examples: int
    tokens: int
    seconds: float


def blank_model(tokenizer: Any, recipe: Recipe) -> Any:
    """A Qwen3 of 0.36 million parameters, tied embeddings, that starts as the identity.

    Zero output projections and embeddings of standard deviation 0.1 are what lets so small a model learn
    quickly.
    """
    config = Qwen3Config(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.kv_heads,
        head_dim=32,
        intermediate_size=recipe.intermediate,
        max_position_embeddings=512,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        tie_word_embeddings=True,
        use_cache=True,
        bos_token_id=tokenizer.token_to_id(BOS),
        eos_token_id=tokenizer.token_to_id(EOS),
        pad_token_id=tokenizer.token_to_id(PAD),
        dtype="float32",
    )
    model = Qwen3ForCausalLM(config)
    generator = torch.Generator().manual_seed(recipe.seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() < 2:
                continue
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.zero_()
            else:
                std = 0.1 if "embed" in name else parameter.shape[1] ** -0.5
                parameter.normal_(std=std, generator=generator)
    return model


@contextmanager
def one_thread() -> Iterator[None]:
    """On a model this small a second thread costs more than it brings, above all where cores are shared."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def pretrain(recipe: Recipe, tokenizer: Any, log: Callable[[str], None]) -> Trained:
    with one_thread(), torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        return _train(recipe, tokenizer, log)


def _train(recipe: Recipe, tokenizer: Any, log: Callable[[str], None]) -> Trained:
    model = blank_model(tokenizer, recipe)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    text = Text(recipe.mix, random.Random(recipe.seed))
    source = _batches(recipe, text, tokenizer)
    losses: list[float] = []
    recent: list[float] = []
    examples = tokens = 0
    began, logged = time.process_time(), time.monotonic()
    model.train()
    for step in range(recipe.steps):
        text.progress = step / recipe.steps
        ids, where, targets = next(source)
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr_at(step)
        hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state
        loss = functional.cross_entropy(model.lm_head(hidden.flatten(0, 1)[where]), targets)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        examples, tokens = examples + len(ids), tokens + ids.numel()
        recent.append(loss.item())
        if len(recent) == _CURVE or step + 1 == recipe.steps:
            losses.append(sum(recent) / len(recent))
            recent = []
        if losses and (time.monotonic() - logged > LOG_SECONDS or step + 1 == recipe.steps):
            logged, spent = time.monotonic(), time.process_time() - began
            log(f"base model: step {step + 1}/{recipe.steps}, loss {losses[-1]:.3f}, {tokens / spent:,.0f} tokens/s")
    model.eval()
    return Trained(model, tuple(losses), examples, tokens, time.process_time() - began)


def _batches(recipe: Recipe, text: Text, tokenizer: Any) -> Iterator[Batch]:
    """Batches of examples of like length, about `batch_tokens` each, in random order."""
    rng = random.Random(f"batches {recipe.seed}")
    pad = tokenizer.token_to_id(PAD)
    while True:
        examples = sorted(_encode([text.example() for _ in range(recipe.pool)], tokenizer), key=_length)
        batches: list[list[Example]] = [[]]
        for example in examples:
            if len(batches[-1]) * _length(example) >= recipe.batch_tokens:
                batches.append([])
            batches[-1].append(example)
        rng.shuffle(batches)
        for examples in batches:
            yield batch(examples, pad)


def _length(example: Example) -> int:
    return len(example[0]) + len(example[1])


def _encode(examples: list[tuple[str, str]], tokenizer: Any) -> list[Example]:
    """Prompts as `actors.codec` encodes them, responses with the stop token that ends them."""
    bos, eos = tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS)
    prompts = tokenizer.encode_batch([prompt for prompt, _ in examples])
    responses = tokenizer.encode_batch([response for _, response in examples])
    return [([bos, *p.ids], [*r.ids, eos]) for p, r in zip(prompts, responses, strict=True)]


def batch(examples: list[Example], pad: int) -> Batch:
    """Token ids [B, T] int64, padded at the right; flat positions [N] that predict a response token; the
    tokens [N].

    Causal attention keeps padding at the right out of every position before it, so no mask is needed.
    """
    width = max(map(_length, examples))
    rows = [prompt + response + [pad] * (width - len(prompt) - len(response)) for prompt, response in examples]
    where = [
        row * width + len(prompt) - 1 + i
        for row, (prompt, response) in enumerate(examples)
        for i in range(len(response))
    ]
    targets = [token for _, response in examples for token in response]
    return torch.tensor(rows), torch.tensor(where), torch.tensor(targets)
