"""vLLM as its own AsyncLLM: the engine core in a process of its own. The way to run it on GPUs.

A commit pauses generation, keeping the requests, loads, and resumes. vLLM acknowledges a pause only when no step
is under way, so version and weights change together for every request. A commit that fails half way leaves the
engine paused for good: its actor has to end.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from itertools import count

import numpy as np
from vllm import RequestOutput, SamplingParams
from vllm.v1.engine.exceptions import EngineDeadError, EngineGenerateError

from actors import vllm_compat as compat
from actors.engine import CommitTimes, Completion, StageTimes, check_prompt, sample_seed
from actors.receiver import Receiver
from actors.version_spans import VersionSpans
from actors.vllm_worker import joined, schema, wire_form
from common.config import ModelConfig
from common.engine import EngineConfig
from common.errors import PartFailed
from common.messages import Stage
from common.types import Float32Array, Int32Array, Span


class AsyncEngine:
    def __init__(self, engine: EngineConfig, model: ModelConfig, *, version: int = 0) -> None:
        self._config, self._model, self._version = engine, model, version
        self._spans = VersionSpans(version)
        self._ids = count()
        self._running = 0
        self._finished = 0  # tokens of completed requests
        self._closed = False

    @property
    def running(self) -> int:
        return self._running

    @property
    def version(self) -> int:
        return self._version

    async def start(self) -> None:
        self._receiver = Receiver(await asyncio.to_thread(schema, self._model))
        self._llm = await asyncio.to_thread(compat.async_engine, self._config, self._model)
        self._stop = compat.stop_tokens(self._llm.vllm_config)
        # The first request costs seconds of lazy initialisation that no episode should see.
        await self.generate(np.zeros(1, np.int32), n=1, temperature=1.0, seed=0, max_tokens=2)

    async def generate(
        self, prompt: Int32Array, *, n: int, temperature: float, seed: int, max_tokens: int
    ) -> list[Completion]:
        requests = [
            self._ask(
                prompt,
                compat.sampling(
                    temperature=temperature, seed=sample_seed(seed, i), max_tokens=max_tokens, stop=self._stop
                ),
            )
            for i in range(n)
        ]
        return [compat.completion(*answer) for answer in await asyncio.gather(*requests)]

    async def score(self, sequences: Sequence[Int32Array]) -> tuple[Float32Array, ...]:
        answers = await asyncio.gather(*(self._ask(sequence, compat.scoring(), compat.FIRST) for sequence in sequences))
        return tuple(compat.scores(output) for output, _ in answers)

    async def stage(self, stage: Stage) -> StageTimes:
        begin, before = time.perf_counter(), self._decoded
        await asyncio.to_thread(self._receiver.receive, stage)
        return StageTimes(time.perf_counter() - begin, max(0, self._decoded - before))

    async def commit(self, version: int) -> CommitTimes:
        recompute = self._config.kv == "recompute"
        with self._receiver.loading(version) as staged:
            begin = time.perf_counter()
            await compat.pause(self._llm, self._config.max_num_seqs, clear_cache=recompute)
            self._version = version  # from here on nothing is sampled until the new weights are in
            loads = await self._llm.collective_rpc("load_staged", args=wire_form(staged, own_process=False))
            # Whoever got an answer meanwhile has taken it; requests that vLLM does not know have still to reach it.
            self._spans.commit(version, compat.sampled(self._llm))
            await self._llm.resume_generation()
        return CommitTimes(pause=time.perf_counter() - begin, load=max(loads))

    async def reset(self) -> None:
        self._receiver.leave()
        await self._llm.pause_generation(mode="abort", clear_cache=True)
        await self._llm.resume_generation()

    async def checksum(self) -> str:
        return joined(await self._llm.collective_rpc("weights_digest"))

    async def failed(self) -> PartFailed:
        failure = await compat.death(self._llm)
        if self._closed:
            await asyncio.get_running_loop().create_future()
        return failure

    async def close(self) -> None:
        self._closed = True
        await asyncio.to_thread(self._receiver.close)  # waits for a receive under way
        compat.end_async_engine(self._llm)
        del self._llm  # its finaliser fails if the interpreter is already half gone

    @property
    def _decoded(self) -> int:
        return self._finished + sum(compat.sampled(self._llm).values())

    async def _ask(
        self, prompt: Int32Array, parameters: SamplingParams, priority: int = 0
    ) -> tuple[RequestOutput, tuple[Span, ...]]:
        check_prompt(prompt, self._config.max_model_len)
        salt = compat.salt(self._config, self._version)
        name = str(next(self._ids))
        request = self._llm.generate(compat.prompt_of(prompt, salt), parameters, name, priority=priority)
        self._running += 1
        self._spans.begin(name)
        try:
            async for output in request:
                if output.finished:
                    tokens = len(output.outputs[0].token_ids)
                    self._finished += tokens
                    return output, self._spans.end(name, tokens)
            raise PartFailed("engine", "vLLM ended a request without an answer")
        except (EngineDeadError, EngineGenerateError) as error:
            raise PartFailed("engine", f"{type(error).__name__}: {error}") from error
        finally:
            self._spans.drop(name)
            self._running -= 1
