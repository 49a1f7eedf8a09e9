"""What each `engine.kv` does to keys and values (KV) at a push, told by log-probs of real vLLM.

The references are computed without vLLM: a Hugging Face model that attends to the KV which another model has made of
the tokens before. The two models' log-probs differ by whole units, so each policy can only be taken for itself.
"""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import Qwen3ForCausalLM

from actors.engine import Completion, create, environment
from common.config import ModelConfig
from common.engine import EngineConfig
from common.types import Float32Array, Int32Array

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]
TOLERANCE, APART = 1e-4, 0.1
BLOCK = 32  # tokens, on CPU
PROMPT, LONG = 3 * BLOCK + 4, 150


@pytest.fixture(autouse=True)
def engine_environment() -> object:
    """vLLM writes to the environment (LD_PRELOAD among others), which must not reach the other tests."""
    before = dict(os.environ)
    os.environ.update(environment())
    yield
    gc.collect()
    os.environ.clear()
    os.environ.update(before)


@torch.no_grad()
def continued(old: Qwen3ForCausalLM, new: Qwen3ForCausalLM, sequence: Int32Array, kept: int) -> Float32Array:
    """Log-probs under `new` of tokens kept + 1…, where the KV of the first `kept` tokens are those of `old`."""
    tokens = torch.from_numpy(sequence.astype(np.int64))[None]
    cache = old(tokens[:, :kept], use_cache=True).past_key_values if kept else None
    logprobs = torch.log_softmax(new(tokens[:, kept:], past_key_values=cache, use_cache=True).logits[0], -1)
    picked: Float32Array = logprobs[:-1].gather(1, tokens[0, kept + 1 :, None])[:, 0].numpy()
    return picked


def gap(prompt: Int32Array, answer: Completion, old: Qwen3ForCausalLM, new: Qwen3ForCausalLM, kept: int) -> float:
    """Largest |difference| from `continued` over the tokens that version 1 sampled."""
    expected = continued(old, new, np.concatenate([prompt, answer.tokens]), kept)
    begin = answer.spans[-1].start
    assert answer.spans[-1].version == 1
    return float(np.abs(expected[len(expected) - (len(answer.tokens) - begin) :] - answer.logprobs[begin:]).max())


@pytest.mark.parametrize("kind", ["inprocess", "async"])
@pytest.mark.parametrize("kv", ["recompute", "keep", "salt"])
async def test_a_push_leaves_the_kv_that_the_policy_says(kind: str, kv: str, tmp_path: Path) -> None:
    from tests.actors import models

    old, new = models.random_model(tmp_path / "a", 0), models.random_model(tmp_path / "b", 1)
    prompt = models.sequence(PROMPT, 3)
    config = EngineConfig(kind=kind, kv=kv, max_model_len=320, max_num_seqs=8, kv_cache_gib=0.1)
    engine = create(config, ModelConfig(path=str(tmp_path / "a")))
    await engine.start()
    running = [
        asyncio.create_task(engine.generate(prompt, n=1, temperature=1.0, seed=seed, max_tokens=LONG))
        for seed in range(4)
    ]
    await engine.generate(prompt, n=1, temperature=1.0, seed=99, max_tokens=4)  # they have produced tokens
    sender = models.Sender(0)
    await sender.stage(engine, new, 1)
    await engine.commit(1)
    (later,) = await engine.generate(prompt, n=1, temperature=1.0, seed=7, max_tokens=20)
    in_flight = [a for (a,) in await asyncio.gather(*running) if [s.version for s in a.spans] == [0, 1]]
    sender.close()
    await engine.close()

    assert len(in_flight) > 1
    for answer in in_flight:
        sampled = PROMPT + answer.spans[-1].start
        kept = sampled - 1  # the last token had been sampled, but not yet read
        stale, fresh = gap(prompt, answer, old, new, kept), gap(prompt, answer, old, new, 0)
        assert (fresh if kv == "recompute" else stale) < TOLERANCE
        assert (stale if kv == "recompute" else fresh) > APART
    stale, fresh = gap(prompt, later, old, new, 3 * BLOCK), gap(prompt, later, old, new, 0)
    assert (stale if kv == "keep" else fresh) < TOLERANCE
    assert (fresh if kv == "keep" else stale) > APART


@pytest.mark.parametrize("kind", ["inprocess", "async"])
async def test_another_run_begins_with_epochs_versions_and_kv_of_its_own(kind: str, tmp_path: Path) -> None:
    """Equal numbers as in the run before: what was left of it would be taken for its own. With `salt` that goes for
    the prefix cache as well, which no push clears: blocks of either run's version 1 have the same salt."""
    from tests.actors import models

    old, new = models.random_model(tmp_path / "a", 0), models.random_model(tmp_path / "b", 1)
    prompt = models.sequence(PROMPT, 3)
    config = EngineConfig(kind=kind, kv="salt", max_model_len=160, max_num_seqs=2, kv_cache_gib=0.1)
    engine = create(config, ModelConfig(path=str(tmp_path / "a")))
    await engine.start()
    for model in (old, new):
        await engine.reset()
        sender = models.Sender(0)
        await sender.stage(engine, model, 1)
        await engine.commit(1)
        (answer,) = await engine.generate(prompt, n=1, temperature=1.0, seed=0, max_tokens=20)
        sender.close()
        assert {span.version for span in answer.spans} == {1}
        assert gap(prompt, answer, model, model, 0) < TOLERANCE
    assert gap(prompt, answer, old, new, 3 * BLOCK) > APART  # of the blocks of the run before
    await engine.close()
