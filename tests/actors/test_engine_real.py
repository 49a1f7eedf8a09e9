"""Both kinds of engine, real vLLM: pushes into running requests, refusals, cancellation, death."""

import asyncio
import gc
import multiprocessing
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio

from actors.engine import Engine, create, environment
from common.checksum import checksum
from common.collective import flatten
from common.config import ModelConfig
from common.engine import EngineConfig
from common.errors import PartFailed, WeightTransferFailed

pytestmark = [
    pytest.mark.real,
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's imports and shutdown warn of much that is not ours
]
TOLERANCE = 1e-5
PROMPTS, LONG = 16, 200


@pytest.fixture(scope="module", autouse=True)
def engine_environment() -> object:
    """vLLM writes to the environment (LD_PRELOAD among others), which must not reach the other tests."""
    before = dict(os.environ)
    os.environ.update(environment())
    yield
    gc.collect()  # so that what vLLM leaves open warns here, where warnings are ignored
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=["inprocess", "async"])
async def engine(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[Engine]:
    from tests.actors import models

    models.random_model(folder / "a", 0)
    config = EngineConfig(kind=request.param, max_model_len=320, max_num_seqs=32, kv_cache_gib=0.1)
    engine = create(config, ModelConfig(path=str(folder / "a")))
    await engine.start()
    yield engine
    await engine.close()


async def test_running_requests_go_on_under_pushed_weights(engine: Engine, folder: Path) -> None:
    from tests.actors import models

    old, new = models.random_model(folder / "a", 0), models.random_model(folder / "b", 1)
    prompts = [models.sequence(40, i) for i in range(PROMPTS)]
    answers = [
        asyncio.create_task(engine.generate(p, n=1, temperature=1.0, seed=i, max_tokens=LONG))
        for i, p in enumerate(prompts)
    ]
    # Served beside the others and submitted after them: when it is done, they have produced tokens.
    await engine.generate(prompts[0], n=1, temperature=1.0, seed=99, max_tokens=8)
    sender = models.Sender(0)
    beside = engine.generate(prompts[0], n=1, temperature=1.0, seed=98, max_tokens=8)
    staged = await sender.stage(engine, new, 1, beside)
    assert staged.tokens > 0 and staged.seconds > 0  # decoding went on
    times = await engine.commit(1)
    assert 0 < times.load <= times.pause
    assert engine.version == 1
    in_flight = 0
    for prompt, (answer,) in zip(prompts, await asyncio.gather(*answers), strict=True):
        assert answer.tokens.dtype == np.int32
        assert answer.logprobs.dtype == np.float32
        assert answer.finish == ("stop" if answer.tokens[-1] == models.STOP else "length")
        assert [s.start for s in answer.spans] == [0, *(s.end for s in answer.spans[:-1])]
        assert answer.spans[-1].end == len(answer.tokens) == len(answer.logprobs)
        in_flight += [s.version for s in answer.spans] == [0, 1]
        assert models.worst(old, prompt, answer, 0) < TOLERANCE
        assert models.worst(new, prompt, answer, 1) < TOLERANCE
    assert in_flight > PROMPTS // 2
    for probe in await engine.score(prompts[:2]):
        assert probe.dtype == np.float32
    for prompt, probe in zip(prompts, await engine.score(prompts), strict=True):
        assert np.abs(probe - models.reference(new, prompt)).max() < TOLERANCE

    # A second push in the same epoch, back again; a prefix cache of the old weights would show.
    await sender.stage(engine, old, 2)
    await engine.commit(2)
    (answer,) = await engine.generate(prompts[0], n=1, temperature=1.0, seed=0, max_tokens=20)
    assert {s.version for s in answer.spans} == {2}
    assert models.worst(old, prompts[0], answer, 2) < TOLERANCE
    sender.close()


async def test_samples_of_a_group_are_independent(engine: Engine) -> None:
    from tests.actors import models

    answers = await engine.generate(models.sequence(20, 5), n=4, temperature=1.0, seed=1, max_tokens=16)
    assert len(answers) == 4
    assert len({answer.tokens.tobytes() for answer in answers}) == 4
    assert engine.running == 0
    assert await engine.score([]) == ()


async def test_a_probe_does_not_queue_behind_answers(engine: Engine) -> None:
    from tests.actors import models

    slots, prompt = 32, models.sequence(20, 6)
    answers = [
        asyncio.create_task(engine.generate(prompt, n=1, temperature=1.0, seed=i, max_tokens=LONG))
        for i in range(3 * slots)
    ]
    await asyncio.sleep(0)  # they are asked for
    await engine.score([prompt])
    assert sum(not answer.done() for answer in answers) > slots  # in turn it would be after two thirds of them
    await asyncio.gather(*answers)


async def test_weights_of_another_form_are_refused(engine: Engine, folder: Path) -> None:
    from tests.actors import models

    version, probe = engine.version, models.sequence(30, 3)
    before = await engine.score([probe])
    metas, buffer = flatten(models.random_model(folder / "b", 1).named_parameters())
    digest = checksum(buffer)
    wrong = {
        "missing": metas[1:],
        "unknown": (*metas, replace(metas[0], name="lm_head.bias")),
        r"float32\[512, 63\]": (replace(metas[0], shape=(512, 63)), *metas[1:]),
        "bfloat16": (replace(metas[0], dtype="bfloat16"), *metas[1:]),
    }
    sender = models.Sender(9)
    for reason, tensors in wrong.items():
        with pytest.raises(WeightTransferFailed, match=reason):
            await engine.stage(sender.offer(7, tensors, digest))
    with pytest.raises(WeightTransferFailed, match="nothing is staged"):
        await engine.commit(7)
    assert engine.version == version
    assert np.array_equal((await engine.score([probe]))[0], before[0])


async def test_a_cancelled_caller_frees_the_engine(engine: Engine) -> None:
    from tests.actors import models

    prompt = models.sequence(20, 4)
    caller = asyncio.create_task(engine.generate(prompt, n=8, temperature=1.0, seed=0, max_tokens=LONG))
    await engine.generate(prompt, n=1, temperature=1.0, seed=0, max_tokens=1)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    await engine.generate(prompt, n=1, temperature=1.0, seed=0, max_tokens=1)
    assert engine.running == 0


async def test_a_prompt_without_room_is_refused(engine: Engine) -> None:
    from tests.actors import models

    for length in (0, 320):
        with pytest.raises(ValueError, match="does not fit"):
            await engine.generate(models.sequence(length, 0), n=1, temperature=1.0, seed=0, max_tokens=4)


async def test_death_reaches_waiters_and_the_owner(engine: Engine, request: pytest.FixtureRequest) -> None:
    """Last in this file: it ends the engine."""
    from tests.actors import models

    if "async" not in request.node.callspec.id:
        pytest.skip("the engine dies with this process")
    waiter = asyncio.create_task(engine.generate(models.sequence(20, 1), n=1, temperature=1.0, seed=0, max_tokens=LONG))
    await engine.generate(models.sequence(20, 2), n=1, temperature=1.0, seed=0, max_tokens=1)
    (core,) = [process for process in multiprocessing.active_children() if "EngineCore" in process.name]
    core.kill()
    with pytest.raises(PartFailed, match="engine"):
        await waiter
    assert isinstance(await engine.failed(), PartFailed)
