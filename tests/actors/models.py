"""Tiny random models for the tests of real engines, and the other end of a push."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from pathlib import Path

import numpy as np
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

from actors.engine import Completion, Engine, StageTimes
from common.checksum import checksum
from common.collective import Door, flatten
from common.messages import Stage, TensorMeta
from common.types import Float32Array, Int32Array

STOP = 1
TIMEOUT = 60.0  # seconds until a broken test ends


def random_model(path: Path, seed: int) -> Qwen3ForCausalLM:
    """A Qwen3 with tied embeddings, saved at `path`. Its log-probs differ from those of other seeds by whole units."""
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=512,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=32,
            max_position_embeddings=512,
            initializer_range=0.1,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=STOP,
            pad_token_id=2,
        )
    )
    model.eval().save_pretrained(path)
    return model


@torch.no_grad()
def reference(model: Qwen3ForCausalLM, sequence: Int32Array) -> Float32Array:
    """Log-probs of tokens 1… as the learner's side computes them."""
    tokens = torch.from_numpy(sequence.astype(np.int64))
    logprobs = torch.log_softmax(model(tokens[None]).logits[0], -1)
    picked: Float32Array = logprobs[:-1].gather(1, tokens[1:, None])[:, 0].numpy()
    return picked


def sequence(length: int, seed: int) -> Int32Array:
    return np.random.default_rng(seed).integers(3, 512, length).astype(np.int32)


def worst(model: Qwen3ForCausalLM, prompt: Int32Array, answer: Completion, version: int) -> float:
    """Largest |log-prob difference| between `model` and the tokens of `answer` that `version` sampled."""
    expected = reference(model, np.concatenate([prompt, answer.tokens]))[len(prompt) - 1 :]
    differences = [
        np.abs(expected - answer.logprobs)[span.start : span.end].max()
        for span in answer.spans
        if span.version == version
    ]
    return float(max(differences, default=0.0))


class Sender:
    """Rank 0 of one epoch with one engine."""

    def __init__(self, epoch: int) -> None:
        self._door = Door("127.0.0.1", 2, TIMEOUT)
        self._epoch = epoch
        self._joined = False

    def offer(self, version: int, tensors: tuple[TensorMeta, ...], digest: str) -> Stage:
        return Stage(self._epoch, version, "127.0.0.1", self._door.port, 1, 2, tensors, digest, TIMEOUT)

    async def stage(
        self, engine: Engine, model: Qwen3ForCausalLM, version: int, beside: Awaitable[object] | None = None
    ) -> StageTimes:
        """`beside` is awaited when the engine waits for the weights, before any are sent."""
        metas, buffer = flatten(model.named_parameters())
        staged = asyncio.create_task(engine.stage(self.offer(version, metas, checksum(buffer))))
        if not self._joined:
            self._group = await asyncio.to_thread(self._door.enter)
            self._joined = True
        if beside is not None:
            await beside
        await asyncio.to_thread(self._group.broadcast, buffer)
        return await staged

    def close(self) -> None:
        self._group.close()
