"""The intake as an actor sees it: leases out, groups in, notices when a test says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from common import messages as m
from common.types import Group, Kind, Lease, Task, TaskType, propose, solve
from learner.leases import blank, lease_id

Message = TypeVar("Message")

SAFETY_NET = 20.0  # seconds; no test is meant to get near it


class FakeIntake:
    """Grants the leases it was given, as far as they are asked for; acknowledges everything else.

    `durable` cleared holds the acknowledgement of groups back. An empty `grant()` says that there are no more.
    """

    def __init__(self) -> None:
        self.notify: Callable[[object], None] = lambda notice: None
        self.rejected: dict[str, str] = {}  # what it says to proposals, by key, instead of ok
        self.got: list[object] = []
        self.durable = asyncio.Event()
        self.durable.set()
        self._leases: list[Lease] = []
        self._no_more = False
        self._changed = asyncio.Condition()

    def dial(self, on_notice: Callable[[object], None]) -> FakeIntake:
        self.notify = on_notice
        return self

    async def grant(self, *leases: Lease) -> None:
        async with self._changed:
            self._leases += leases
            self._no_more = not leases
            self._changed.notify_all()

    async def request(self, message: object) -> object:
        async with self._changed:
            self.got.append(message)
            self._changed.notify_all()
            if isinstance(message, m.WantLeases):
                await self._changed.wait_for(lambda: self._leases or self._no_more)
                granted = tuple(self._leases[: message.capacity])
                del self._leases[: message.capacity]
                return m.Leases(granted)
        if isinstance(message, m.AskNovelty):
            return m.Novelty(self.rejected.get(message.key, "ok"))
        if isinstance(message, m.Deliver):
            await self.durable.wait()
        return m.Ack()

    async def until(self, kind: type[Message], count: int = 1) -> list[Message]:
        """All messages of this kind so far, once there are at least `count`."""
        async with self._changed:
            await asyncio.wait_for(self._changed.wait_for(lambda: len(self.of(kind)) >= count), SAFETY_NET)
        return self.of(kind)

    def of(self, kind: type[Message]) -> list[Message]:
        return [message for message in self.got if isinstance(message, kind)]

    @property
    def delivered(self) -> list[Group]:
        return [message.group for message in self.of(m.Deliver)]


PROGRAM = "def f(a):\n return a+1"


def a_task(task_type: TaskType = TaskType.DEDUCTION, pairs: int = 1) -> Task:
    """f(a) = a + 1 on 3, or on 3, 4, … for several pairs, the first of which is shown."""
    values = range(3, 3 + pairs)
    inputs, outputs = tuple(str(v) for v in values), tuple(str(v + 1) for v in values)
    return Task(task_type, PROGRAM, inputs, outputs, f"{task_type}/a+1", shown=1 if pairs > 1 else 0)


def proposing(lease: int, task_type: TaskType = TaskType.DEDUCTION, *, samples: int = 4, seed: int = 7) -> Lease:
    references = (a_task(task_type, 2 if task_type is TaskType.INDUCTION else 1),)
    return Lease(lease, 0, propose(task_type), 0, seed, samples, references=references)


def solving(lease: int, *, samples: int = 2, seed: int = 7, kind: Kind | None = None) -> Lease:
    task = a_task()
    return Lease(lease, 0, kind or solve(task.type), 0, seed, samples, task=task)


def seeding(lease: int, task: Task | None = None) -> Lease:
    """To validate `task`, or to propose one of deduction without references."""
    return Lease(lease_id(Kind.SEED, lease), 0, Kind.SEED, 0, 7, 0, task=task or blank(TaskType.DEDUCTION))
