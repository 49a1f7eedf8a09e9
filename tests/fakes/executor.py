"""An executor whose judgement is scripted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from common.jobs import Validate, Validation, Verdict, Verdicts, Verify
from common.types import Status, Task


def defined(job: Validate) -> Validation:
    """Every program is fine; its output on x is "f(x)"."""
    outputs = tuple(f"f({text})" for text in job.inputs)
    return Validation(Status.OK, "", outputs, job.program, job.inputs)


def by_output(task: Task, answer: str) -> Verdict:
    """Right is what equals the task's first output."""
    return Verdict(answer == task.outputs[0], Status.OK)


class FakeExecutor:
    """Implements actors.actor.Pool. A job holds one of `credits` while it is judged.

    `open` cleared holds every job that has a credit. The first `lost_validations` and `lost_verifications` jobs meet
    a dead shard.
    """

    def __init__(
        self,
        *,
        credits: int = 1000,
        validate: Callable[[Validate], Validation] = defined,
        verify: Callable[[Task, str], Verdict] = by_output,
        lost_validations: int = 0,
        lost_verifications: int = 0,
    ) -> None:
        self._limit, self._credits, self._asked = credits, asyncio.Semaphore(credits), 0
        self._validate, self._verify = validate, verify
        self._lost_validations, self._lost_verifications = lost_validations, lost_verifications
        self.open = asyncio.Event()
        self.open.set()
        self.validated: list[Validate] = []
        self.verified: list[Verify] = []
        self.running = 0
        self.most_running = 0

    @property
    def room(self) -> int:
        return max(0, self._limit - self._asked)

    async def validate(self, job: Validate) -> Validation:
        await self._judge()
        self.validated.append(job)
        if len(self.validated) <= self._lost_validations:
            return Validation(Status.INFRA, "the shard died")
        return self._validate(job)

    async def verify(self, job: Verify) -> Verdicts:
        await self._judge()
        self.verified.append(job)
        if len(self.verified) <= self._lost_verifications:
            return Verdicts((Verdict(False, Status.INFRA, "the shard died"),) * len(job.answers))
        return Verdicts(tuple(self._verify(job.task, answer) for answer in job.answers))

    async def _judge(self) -> None:
        self._asked += 1
        try:
            async with self._credits:
                self.running += 1
                self.most_running = max(self.most_running, self.running)
                try:
                    await self.open.wait()
                    await asyncio.sleep(0)  # a turn of the loop, so that jobs of several episodes interleave
                finally:
                    self.running -= 1
        finally:
            self._asked -= 1
