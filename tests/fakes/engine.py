"""An engine that says what its script says, through as many slots as it has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from actors.engine import CommitTimes, Completion, StageTimes
from common.errors import PartFailed, WeightTransferFailed
from common.messages import Stage
from common.types import Float32Array, Int32Array, Span

STOP_TOKEN = 0

Script = Callable[[str, int], str]  # (prompt, sample index) → response


class CharCodec:
    """A token per character; token 0 ends an answer and leaves no text."""

    def encode(self, text: str) -> Int32Array:
        return np.array([ord(c) for c in text], np.int32)

    def decode(self, tokens: Int32Array) -> str:
        return "".join(chr(token) for token in tokens if token != STOP_TOKEN)


@dataclass(frozen=True)
class Call:
    """What `generate` was asked."""

    prompt: str
    n: int
    temperature: float
    seed: int
    max_tokens: int


class FakeEngine:
    """Implements actors.engine.Engine. A sample holds one of `slots` from its first token to its last.

    `open` cleared holds every sample in its slot; `finish` and `logprob` apply to all answers, and an answer that
    does not fit `max_tokens` is cut whatever `finish` says.
    """

    def __init__(self, script: Script, *, slots: int = 1000, finish: str = "stop", logprob: float = -0.5) -> None:
        self._script, self._finish, self._logprob = script, finish, logprob
        self._slots = asyncio.Semaphore(slots)
        self._codec = CharCodec()
        self._death: PartFailed | None = None
        self._dead = asyncio.Event()
        self._staged: int | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.calls: list[Call] = []
        self.running = 0
        self.most_running = 0
        self.version = 0
        self.stage_error = ""

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    async def generate(
        self, prompt: Int32Array, *, n: int, temperature: float, seed: int, max_tokens: int
    ) -> list[Completion]:
        text = self._codec.decode(prompt)
        self.calls.append(Call(text, n, temperature, seed, max_tokens))
        return list(await asyncio.gather(*(self._sample(self._script(text, i), max_tokens) for i in range(n))))

    async def _sample(self, response: str, max_tokens: int) -> Completion:
        async with self._slots:
            self.running += 1
            self.most_running = max(self.most_running, self.running)
            try:
                await self.open.wait()
                await asyncio.sleep(0)  # a turn of the loop, so that samples of several requests interleave
            finally:
                self.running -= 1
        tokens = np.append(self._codec.encode(response), np.int32(STOP_TOKEN))
        cut = len(tokens) > max_tokens
        tokens = tokens[:max_tokens]
        logprobs = np.full(len(tokens), self._logprob, np.float32)
        spans = (Span(self.version, 0, len(tokens)),)
        return Completion(tokens, logprobs, spans, "length" if cut else self._finish)

    async def score(self, sequences: Sequence[Int32Array]) -> tuple[Float32Array, ...]:
        """The version itself, so that a test sees which weights scored."""
        return tuple(np.full(len(sequence) - 1, self.version, np.float32) for sequence in sequences)

    async def stage(self, stage: Stage) -> StageTimes:
        if self.stage_error:
            raise WeightTransferFailed(self.stage_error)
        self._staged = stage.version
        return StageTimes(seconds=0.5, tokens=30)

    async def commit(self, version: int) -> CommitTimes:
        if self._staged != version:
            raise WeightTransferFailed(f"version {version} is not staged")
        self.version = version
        return CommitTimes(pause=0.25, load=0.125)

    def die(self, failure: PartFailed) -> None:
        self._death = failure
        self._dead.set()

    async def reset(self) -> None: ...

    async def checksum(self) -> str:
        return f"weights of version {self.version}"

    async def failed(self) -> PartFailed:
        await self._dead.wait()
        assert self._death is not None
        return self._death
