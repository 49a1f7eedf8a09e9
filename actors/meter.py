"""Where an actor's time goes: an engine and an executor that tell the ledger what is running.

An actor is in one state at a time, the first of these that holds: weight-pause, generate (a request is running),
wait-executor, wait-lease (nothing is open), idle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.cost_sums import CostSums
from actors.engine import Completion, Engine
from actors.nonfinite import NonFinite
from common.jobs import Executor, Validate, Validation, Verdicts, Verify
from common.ledger import Ledger
from common.push_span import PushSpan
from common.types import Int32Array


class Meter:
    """Wraps one engine and one executor of an actor, which tells of pauses and episodes itself (`during`).

    `began` is called when any of these begins, and `ended` when it is over, whatever its outcome. `samples`: what the
    engine has been asked for and has not answered.
    """

    def __init__(
        self,
        engine: Engine,
        executor: Executor,
        ledger: Ledger,
        ended: Callable[[], None] = lambda: None,
        began: Callable[[], None] = lambda: None,
    ) -> None:
        self._engine, self._executor, self._ledger = engine, executor, ledger
        self._ended, self._began = ended, began
        self.samples = 0
        self._running: Counter[str] = Counter()
        self._produced: list[tuple[float, int]] = []
        self._pushes: list[PushSpan] = []
        self.costs = CostSums()
        self._nonfinite = NonFinite()

    @contextmanager
    def during(self, what: str, samples: int = 0) -> Iterator[None]:
        """`what`: pause, generate, executor or episode. `samples`: of a request to the engine."""
        self._running[what] += 1
        self.samples += samples
        self._ledger.enter(self.state)
        began = self._ledger.now()
        self._began()
        answered = False
        try:
            yield
            answered = True
        finally:
            now = self._ledger.now()
            if samples and not answered:
                self.costs.running(now, self._engine.running)
                self.costs.lost(samples, now - began)
            else:
                self.costs.ended(what, now - began)
            self._running[what] -= 1
            self.samples -= samples
            self._ledger.enter(self.state)
            self._ended()

    @property
    def state(self) -> str:
        if self._running["pause"]:
            return "weight-pause"
        if self._running["generate"]:
            return "generate"
        if self._running["executor"]:
            return "wait-executor"
        return "idle" if self._running["episode"] else "wait-lease"

    async def generate(
        self, prompt: Int32Array, *, n: int, temperature: float, seed: int, max_tokens: int
    ) -> list[Completion]:
        began = self._ledger.now()
        before = self.costs.running(began, self._engine.running, more=n)
        with self.during("generate", n):
            completions = await self._engine.generate(
                prompt, n=n, temperature=temperature, seed=seed, max_tokens=max_tokens
            )
        self._nonfinite.note(completions)
        tokens = sum(len(completion.tokens) for completion in completions)
        now = self._ledger.now()
        self._produced.append((now, tokens))
        area = self.costs.running(now, self._engine.running) - before
        if now > began:
            lengths = [len(completion.tokens) for completion in completions]
            self.costs.request(lengths, now - began, area / (now - began))
        return completions

    def drain_produced(self) -> tuple[tuple[float, int], ...]:
        """(wall clock, tokens) of the requests completed since the last call."""
        produced, self._produced = tuple(self._produced), []
        return produced

    def pushed(self, phase: str, version: int, seconds: float, tokens: int = 0) -> None:
        """`phase` (common/push_span.py) is over now."""
        self._pushes.append(PushSpan(phase, version, self._ledger.now() - seconds, seconds, tokens))

    def drain_pushes(self) -> tuple[PushSpan, ...]:
        pushes, self._pushes = tuple(self._pushes), []
        return pushes

    async def validate(self, job: Validate) -> Validation:
        with self.during("executor"):
            return await self._executor.validate(job)

    async def verify(self, job: Verify) -> Verdicts:
        with self.during("executor"):
            return await self._executor.verify(job)
