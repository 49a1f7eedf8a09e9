"""A process of a run, as its driver knows it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

# Logical CPUs that a process of a role asks Ray for: fractions, so that a small run fits two.
CPUS = {"intake": 0.1, "executor": 0.1, "trainer": 0.3, "actor": 0.3}


def role_of(name: str) -> str:
    """actor-3: actor."""
    return name.partition("-")[0]


@dataclass
class Part:
    """`handle` is Ray's."""

    name: str
    handle: Any
    running: asyncio.Task[Any] | None = None
    restarts: int = 0
    key: bytes = b""  # public; empty on ipc

    @property
    def role(self) -> str:
        return role_of(self.name)

    @property
    def idle(self) -> bool:
        """Whether it lives and may be asked to run: it has not run yet, or ended well."""
        task = self.running
        return task is None or (task.done() and not task.cancelled() and task.exception() is None)
