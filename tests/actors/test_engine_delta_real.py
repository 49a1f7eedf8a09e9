"""Deltas from a real publisher into real vLLM in bfloat16, both kinds of engine: bit for bit what whole pushes give."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
import torch

from actors.engine import Engine, create, environment
from common import messages as m
from common.collective import flatten
from common.config import ModelConfig
from common.engine import EngineConfig
from common.shipment import WHOLE
from learner.publisher import Publisher, Sending
from tests.fakes.line import Line

pytestmark = [
    pytest.mark.real,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's imports and shutdown warn of much that is not ours
]
HOST = "127.0.0.1"
TIMEOUT = 60.0


@pytest.fixture(scope="module", autouse=True)
def engine_environment() -> object:
    """vLLM writes to the environment (LD_PRELOAD among others), which must not reach the other tests."""
    before = dict(os.environ)
    os.environ.update(environment())
    yield
    gc.collect()  # so that what vLLM leaves open warns here, where warnings are ignored
    os.environ.clear()
    os.environ.update(before)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["inprocess", "async"])
async def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    from tests.actors import models

    folder = tmp_path_factory.mktemp("model")
    models.random_model(folder, 0)
    config = EngineConfig(kind=request.param, max_model_len=320, max_num_seqs=8, kv_cache_gib=0.1)
    engine = create(config, ModelConfig(path=str(folder), dtype="bfloat16"))
    await engine.start()
    yield engine
    await engine.close()


def weights(folder: Path, version: int) -> list[tuple[str, torch.Tensor]]:
    """bfloat16 weights of a model, of which each version moves other 2 % by a tenth."""
    from tests.actors import models

    flat = [(name, p.detach().bfloat16()) for name, p in models.random_model(folder, 0).named_parameters()]
    for step in range(1, version + 1):
        for _, tensor in flat:
            tensor.view(-1)[step::50] += 0.1
    return flat


async def test_deltas_load_what_a_whole_push_would(engine: Engine, tmp_path: Path) -> None:
    from tests.actors import models

    line = Line()
    publisher = Publisher(line, HOST, TIMEOUT, [], Sending(delta=True))
    running = asyncio.create_task(publisher.run())
    probe = models.sequence(60, 1)

    async def push(version: int, trained: int, epoch: int) -> tuple[m.Published, int, str, np.ndarray]:
        """Publish the weights of `trained` as `version`."""
        tensors = weights(tmp_path, trained)
        publisher.hold(version, flatten(tensors)[0], ([pair] for pair in tensors), [])
        offer = await line.offer(version, epoch, world=2)
        await engine.stage(
            m.Stage(
                offer.epoch, version, HOST, offer.port, 1, 2, offer.tensors, offer.checksum, TIMEOUT, offer.shipment
            )
        )
        published = await line.published()
        assert published.error == ""
        await engine.commit(version)
        (logprobs,) = await engine.score([probe])
        return published, offer.shipment.base, await engine.checksum(), logprobs

    first, base, digest, logprobs = await push(1, 0, epoch=1)
    assert base == WHOLE and first.sent == first.whole
    digests, scored = {0: digest}, {0: logprobs}
    for version in (1, 2):
        published, base, digests[version], scored[version] = await push(1 + version, version, epoch=1)
        assert base == version and published.sent < 0.1 * published.whole
    assert len(set(digests.values())) == 3
    assert np.abs(scored[2] - scored[0]).max() > 0.1
    for version in (1, 2):  # a new epoch: whole
        _, base, digest, logprobs = await push(3 + version, version, epoch=1 + version)
        assert base == WHOLE
        assert digest == digests[version]
        assert np.array_equal(logprobs, scored[version])
    await line.pushes.put(m.Push(-1, -1, 0, stop=True))
    await running
