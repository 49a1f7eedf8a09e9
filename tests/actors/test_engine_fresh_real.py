"""A pushed engine computes what a freshly loaded one does, and equal seeds give equal tokens."""

import asyncio
import copy
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from actors.engine import create, environment
from common.config import ModelConfig
from common.engine import EngineConfig
from common.errors import PartFailed
from learner.weight_sync import probe_difference

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]
ALONE = EngineConfig(kind="inprocess", max_model_len=128, max_num_seqs=1, prefix_caching=False, kv_cache_gib=0.05)


@pytest.fixture(autouse=True)
def engine_environment() -> object:
    """vLLM writes to the environment (LD_PRELOAD among others), which must not reach the other tests."""
    before = dict(os.environ)
    os.environ.update(environment())
    yield
    os.environ.clear()
    os.environ.update(before)


async def test_push_equals_a_fresh_load_and_seeds_repeat(tmp_path: Path) -> None:
    from tests.actors import models

    models.random_model(tmp_path / "a", 0)
    new = models.random_model(tmp_path / "b", 1)
    probe, prompt = [models.sequence(length, length) for length in (2, 33, 100)], models.sequence(24, 0)

    pushed = create(ALONE, ModelConfig(path=str(tmp_path / "a")))
    await pushed.start()
    first, again, other = [
        await pushed.generate(prompt, n=3, temperature=1.0, seed=seed, max_tokens=40) for seed in (5, 5, 6)
    ]
    for one, two in zip(first, again, strict=True):
        assert np.array_equal(one.tokens, two.tokens)
        assert np.array_equal(one.logprobs, two.logprobs)
    assert not np.array_equal(first[0].tokens, other[0].tokens)
    sender = models.Sender(0)
    await sender.stage(pushed, new, 1)
    await pushed.commit(1)
    scores = await pushed.score(probe)
    answers = await pushed.generate(prompt, n=2, temperature=1.0, seed=5, max_tokens=40)
    sender.close()
    await pushed.close()

    fresh = create(ALONE, ModelConfig(path=str(tmp_path / "b")), version=1)
    await fresh.start()
    for ours, theirs in zip(scores, await fresh.score(probe), strict=True):
        assert np.abs(ours - theirs).max() < 1e-5
    for one, two in zip(
        answers, await fresh.generate(prompt, n=2, temperature=1.0, seed=5, max_tokens=40), strict=True
    ):
        assert np.array_equal(one.tokens, two.tokens)
        assert one.spans == two.spans
    await fresh.close()


async def test_spoilt_weights_show_in_log_probs_until_others_are_pushed(tmp_path: Path) -> None:
    """An infinity in the last norm makes every logit of it infinite or no number."""
    from tests.actors import models

    good = models.random_model(tmp_path / "a", 0)
    spoilt = copy.deepcopy(good)
    with torch.no_grad():
        spoilt.model.norm.weight[0] = torch.inf
    probe, prompt = models.sequence(12, 1), models.sequence(24, 0)
    engine = create(ALONE, ModelConfig(path=str(tmp_path / "a")))
    await engine.start()
    sender = models.Sender(0)
    for version, model in ((1, spoilt), (2, good)):
        await sender.stage(engine, model, version)
        await engine.commit(version)
        (scores,) = await engine.score([probe])
        (answer,) = await engine.generate(prompt, n=1, temperature=1.0, seed=0, max_tokens=8)
        assert np.isfinite(answer.logprobs).all() == np.isfinite(scores).all() == (model is good)
        assert probe_difference((models.reference(good, probe),), (scores,)) < 1e-5 or model is spoilt
        assert probe_difference((models.reference(spoilt, probe),), (scores,)) == math.inf
    sender.close()
    await engine.close()


async def test_a_failing_step_ends_every_waiter(tmp_path: Path) -> None:
    """A token id beyond the vocabulary is a forward pass that raises."""
    from tests.actors import models

    models.random_model(tmp_path / "a", 0)
    engine = create(ALONE, ModelConfig(path=str(tmp_path / "a")))
    await engine.start()
    waiter = asyncio.create_task(engine.generate(models.sequence(9, 0), n=1, temperature=1.0, seed=0, max_tokens=100))
    with pytest.raises(PartFailed, match="engine"):
        await engine.generate(np.full(4, 1 << 20, np.int32), n=1, temperature=1.0, seed=0, max_tokens=4)
    with pytest.raises(PartFailed):
        await waiter
    assert isinstance(await engine.failed(), PartFailed)
    with pytest.raises(PartFailed):
        await engine.score([models.sequence(4, 0)])
    await engine.close()


async def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=str(tmp_path)):
        await create(ALONE, ModelConfig(path=str(tmp_path))).start()
