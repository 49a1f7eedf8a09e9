"""vLLM inside the actor's process: one thread steps it, the event loop talks to that thread.

The cheapest way to run a small model on CPU: no second process, no serialisation. Everything that touches vLLM
is a command, run by the stepping thread between two steps; so a commit can neither meet a forward pass nor be
seen half done. With nothing to decode the thread sleeps on the queue of commands.

Invariants: vLLM is touched by the stepping thread alone; futures are completed by the event loop alone. An
exception in the thread is the end of the engine: every waiter gets PartFailed, and so does `failed`.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from vllm import RequestOutput, SamplingParams

from actors import vllm_compat as compat
from actors.engine import CommitTimes, Completion, StageTimes, check_prompt, sample_seed
from actors.receiver import Receiver, Staged
from actors.version_spans import VersionSpans
from actors.vllm_worker import joined, schema, wire_form
from common.config import ModelConfig
from common.engine import EngineConfig
from common.errors import PartFailed
from common.messages import Stage
from common.types import Float32Array, Int32Array, Span

Answer = tuple[RequestOutput, tuple[Span, ...]]


@dataclass(eq=False)
class _Job:
    """Requests that are answered together."""

    future: asyncio.Future[list[Answer]]
    missing: int
    answers: dict[str, Answer] = field(default_factory=dict)


class InProcessEngine:
    def __init__(self, engine: EngineConfig, model: ModelConfig, *, version: int = 0) -> None:
        self._config, self._model, self._version = engine, model, version
        self._spans = VersionSpans(version)
        self._commands: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._ids = count()
        self._jobs: dict[str, _Job] = {}
        self._waiting: set[asyncio.Future[Any]] = set()
        self._finished = 0  # tokens of completed requests
        self._open = True
        self._stop: list[int] = []

    @property
    def running(self) -> int:
        return len(self._jobs)

    @property
    def version(self) -> int:
        return self._version

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._death: asyncio.Future[PartFailed] = self._loop.create_future()
        self._receiver = Receiver(await asyncio.to_thread(schema, self._model))
        built = self._expect()
        self._thread = threading.Thread(target=self._run, args=(built,), name="engine", daemon=True)
        self._thread.start()
        await built
        # The first request costs seconds of lazy initialisation that no episode should see.
        await self.generate(np.zeros(1, np.int32), n=1, temperature=1.0, seed=0, max_tokens=2)

    async def generate(
        self, prompt: Int32Array, *, n: int, temperature: float, seed: int, max_tokens: int
    ) -> list[Completion]:
        parameters = [
            compat.sampling(temperature=temperature, seed=sample_seed(seed, i), max_tokens=max_tokens, stop=self._stop)
            for i in range(n)
        ]
        return [compat.completion(*answer) for answer in await self._ask([prompt] * n, parameters)]

    async def score(self, sequences: Sequence[Int32Array]) -> tuple[Float32Array, ...]:
        answers = await self._ask(sequences, [compat.scoring()] * len(sequences), compat.FIRST)
        return tuple(compat.scores(output) for output, _ in answers)

    async def stage(self, stage: Stage) -> StageTimes:
        begin, before = time.perf_counter(), self._decoded
        await asyncio.to_thread(self._receiver.receive, stage)
        return StageTimes(time.perf_counter() - begin, max(0, self._decoded - before))

    async def commit(self, version: int) -> CommitTimes:
        with self._receiver.loading(version) as staged:
            times: asyncio.Future[CommitTimes] = self._expect()
            self._commands.put(lambda: self._post(times, self._load(staged)))
            return await times

    async def reset(self) -> None:
        self._receiver.leave()
        cleared: asyncio.Future[None] = self._expect()
        self._commands.put(partial(self._reset, cleared))
        await cleared

    async def checksum(self) -> str:
        digests: asyncio.Future[list[str]] = self._expect()
        self._commands.put(lambda: self._post(digests, self._llm.collective_rpc("weights_digest")))
        return joined(await digests)

    async def failed(self) -> PartFailed:
        return await asyncio.shield(self._death)

    async def close(self) -> None:
        await asyncio.to_thread(self._receiver.close)  # waits for a receive under way
        self._commands.put(self._end)
        await asyncio.to_thread(self._thread.join)

    # -- event loop ------------------------------------------------------------------------------------------

    def _expect(self) -> asyncio.Future[Any]:
        """A future that also ends when the engine does."""
        if self._death.done():
            raise self._death.result()
        future: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.add(future)
        future.add_done_callback(self._waiting.discard)
        return future

    async def _ask(
        self, prompts: Sequence[Int32Array], parameters: Sequence[SamplingParams], priority: int = 0
    ) -> list[Answer]:
        if not prompts:
            return []
        for prompt in prompts:
            check_prompt(prompt, self._config.max_model_len)
        job = _Job(self._expect(), len(prompts))
        ids = [str(next(self._ids)) for _ in prompts]
        self._jobs.update(dict.fromkeys(ids, job))
        self._commands.put(partial(self._add, ids, prompts, parameters, priority))
        try:
            return await job.future
        except asyncio.CancelledError:
            self._commands.put(partial(self._abort, ids))
            raise

    @property
    def _decoded(self) -> int:
        return self._finished + sum(compat.sampled(self._llm).values())

    def _ended(self, error: BaseException | None) -> None:
        what = "closed" if error is None else f"{type(error).__name__}: {error}"
        failure = PartFailed("engine", what, hint="the actor's log has the traceback")
        failure.__cause__ = error
        if error is not None:
            self._death.set_result(failure)
        for future in tuple(self._waiting):
            if not future.done():
                future.set_exception(failure)

    # -- stepping thread -------------------------------------------------------------------------------------

    def _run(self, built: asyncio.Future[None]) -> None:
        try:
            torch.set_num_threads(self._config.threads)
            self._llm = compat.in_process_engine(compat.engine_args(self._config, self._model, in_process=True))
            self._stop = compat.stop_tokens(self._llm.vllm_config)
            self._post(built, None)
            while self._open:
                self._obey()
                if self._llm.has_unfinished_requests():
                    self._collect(self._llm.step())
            compat.end_in_process_engine(self._llm)
        finally:
            self._loop.call_soon_threadsafe(self._ended, sys.exception())

    def _obey(self) -> None:
        """Run the commands there are; if there is nothing to decode, sleep until there is one."""
        if not self._llm.has_unfinished_requests():
            self._commands.get()()
        while not self._commands.empty():
            self._commands.get()()

    def _add(
        self, ids: Sequence[str], prompts: Sequence[Int32Array], parameters: Sequence[SamplingParams], priority: int
    ) -> None:
        salt = compat.salt(self._config, self._version)
        for name, prompt, parameter in zip(ids, prompts, parameters, strict=True):
            self._spans.begin(name)
            self._llm.add_request(name, compat.prompt_of(prompt, salt), parameter, priority=priority)

    def _abort(self, ids: Sequence[str]) -> None:
        open_ids = [name for name in ids if self._jobs.pop(name, None)]
        self._llm.abort_request(open_ids)
        for name in open_ids:
            self._spans.drop(name)

    def _collect(self, outputs: Sequence[Any]) -> None:
        for output in outputs:
            tokens = len(output.outputs[0].token_ids)
            self._finished += tokens
            job = self._jobs.pop(output.request_id)
            job.answers[output.request_id] = output, self._spans.end(output.request_id, tokens)
            job.missing -= 1
            if not job.missing:
                # Ids were given out in the order of the prompts.
                self._post(job.future, [job.answers[name] for name in sorted(job.answers, key=int)])

    def _load(self, staged: Staged) -> CommitTimes:
        begin = time.perf_counter()
        load: float = max(self._llm.collective_rpc("load_staged", args=wire_form(staged, own_process=True)))
        if self._config.kv == "recompute":
            self._clear_cache()
        self._spans.commit(staged.version, compat.sampled(self._llm))
        self._version = staged.version
        return CommitTimes(pause=time.perf_counter() - begin, load=load)

    def _reset(self, cleared: asyncio.Future[None]) -> None:
        self._clear_cache()
        self._post(cleared, None)

    def _clear_cache(self) -> None:
        """Running requests compute their keys and values again."""
        if not self._llm.reset_prefix_cache(reset_running_requests=True):
            raise PartFailed("engine", "vLLM kept its prefix cache, which belongs to the weights before")

    def _end(self) -> None:
        self._open = False

    def _post(self, future: asyncio.Future[Any], value: Any) -> None:
        self._loop.call_soon_threadsafe(_complete, future, value)


def _complete(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)
