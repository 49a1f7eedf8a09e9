"""What is waited for at a commit, with a core and an output task that do as vLLM's do."""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

import pytest

from actors.engine import environment

pytestmark = [pytest.mark.real, pytest.mark.filterwarnings("ignore")]
CHUNK = 128  # outputs that vLLM takes without letting others run


@pytest.fixture(autouse=True)
def engine_environment() -> object:
    """vLLM writes to the environment, which must not reach the other tests."""
    before = dict(os.environ)
    os.environ.update(environment())
    yield
    os.environ.clear()
    os.environ.update(before)


class Core:
    """Sends the outputs of `steps`, so many requests each, before it grants a pause."""

    def __init__(self, steps: list[int]) -> None:
        self.outputs_queue: asyncio.Queue[int] = asyncio.Queue()
        self.asked: list[tuple[str, bool]] = []
        self._steps = steps

    async def pause_scheduler_async(self, mode: str, clear_cache: bool) -> None:
        self.asked.append((mode, clear_cache))
        for outputs in self._steps:
            self.outputs_queue.put_nowait(outputs)


class Llm:
    def __init__(self, steps: list[int]) -> None:
        self.engine_core = Core(steps)
        self.taken = 0

    async def take(self) -> None:
        while True:
            left = await self.engine_core.outputs_queue.get()
            while left:
                self.taken += min(CHUNK, left)
                left -= min(CHUNK, left)
                if left:
                    await asyncio.sleep(0)


@pytest.mark.parametrize("steps", [[], [1], [300], [CHUNK, 0, 300, 300]])
async def test_all_outputs_of_before_are_taken_when_a_pause_begins(steps: list[int]) -> None:
    from actors import vllm_compat

    llm = Llm(steps)
    task = asyncio.create_task(llm.take())
    await asyncio.sleep(0)  # it waits for outputs
    await vllm_compat.pause(cast(Any, llm), slots=300, clear_cache=True)
    assert llm.taken == sum(steps)
    assert llm.engine_core.asked == [("keep", True)]
    task.cancel()
