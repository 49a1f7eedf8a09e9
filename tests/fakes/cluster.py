"""A cluster whose processes are stand-ins: what starts, watches and ends them is real, and there is no Ray.

A handle is used as those of Ray: `handle.method.remote(...)` is awaited. Its `run` ends when a test says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from azr.cluster import Cluster
from azr.part import Part
from azr.process import Process
from azr.wiring import Endpoint
from common.messages import Report

SUMMARY = {
    "steps": 1,
    "sequences": 6,
    "sequences_per_second": 1.0,
    "evaluation": [],
    "staleness": {},
    "overlap": {"with_tokens": 1, "steps": 1},
    "ledger": {},
    "rejected": {},
    "seeds": {},
    "flags": {},
    "leases": {},
}


@dataclass(eq=False)
class Handle:
    """`answers`: what a method is to do, besides the default."""

    name: str
    called: list[str] = field(default_factory=list)
    over: asyncio.Future[Any] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    answers: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def __getattr__(self, method: str) -> Method:
        return Method(self, method)


@dataclass(frozen=True)
class Method:
    handle: Handle
    name: str

    def remote(self, *arguments: object) -> asyncio.Future[Any]:
        self.handle.called.append(self.name)
        return self.handle.over if self.name == "run" else asyncio.ensure_future(self._answer())

    async def _answer(self) -> Any:
        if self.name in self.handle.answers:
            return self.handle.answers[self.name]()
        if self.name == "status":
            await asyncio.Event().wait()
        known = {
            "public_key": self.handle.name.encode(),
            "start": Endpoint(f"ipc://{self.handle.name}"),
            "report": Report(self.handle.name, {}),
            "close": SUMMARY,
        }
        return known.get(self.name)


@dataclass
class FakeCluster(Cluster):
    """`made`: parts in the order in which their processes were started; `killed`, ended."""

    made: list[str] = field(default_factory=list)
    killed: list[str] = field(default_factory=list)

    def _start_ray(self, progress: Callable[[str], None]) -> None:
        pass

    def _spawn(self, name: str, cls: type[Process]) -> Handle:
        self.made.append(name)
        return Handle(name)

    def _kill(self, part: Part) -> None:
        self.killed.append(part.name)
