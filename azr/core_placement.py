"""Which cores each role of a run may use, and how a process keeps to them.

Every process of a run on this machine is told its cores: Ray's workers inherit those of Ray, which may be fewer than
what a role may use. On the machines of a given Ray cluster no process is.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from azr.finding import Finding
from common.config import Config
from common.cores import cores


@dataclass(frozen=True)
class CorePlacement:
    """Cores of each role; empty: whatever the process has."""

    actor: tuple[int, ...] = ()
    executor: tuple[int, ...] = ()
    intake: tuple[int, ...] = ()
    trainer: tuple[int, ...] = ()
    ray: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: Config, usable: Collection[int]) -> Self:
        """On a machine where this process may use the cores `usable`.

        Pinned means engines on one half of them and learner and intake on the other; the executor, with its many short
        processes, goes where there is room.
        """
        if config.cluster.address:
            return cls()
        every = tuple(sorted(usable))
        half = len(every) // 2 if config.cluster.pin else 0
        roles = {field.name: every for field in dataclasses.fields(cls)}
        if half:
            roles |= {"actor": every[:half], "intake": every[half:], "trainer": every[half:]}
        named = {role: cores(text) for role, text in dataclasses.asdict(config.cluster.cores).items() if text}
        return cls(**roles | named)

    def role(self, name: str) -> tuple[int, ...]:
        found: tuple[int, ...] = getattr(self, name)
        return found


def missing(config: Config) -> Iterator[Finding]:
    """Cores that are named and that this process may not use."""
    for role, text in dataclasses.asdict(config.cluster.cores).items():
        if text and (lacking := sorted(set(cores(text)) - os.sched_getaffinity(0))):
            yield Finding(
                True,
                f"cluster.cores.{role}={text}, but this process may not use core {', '.join(map(str, lacking))}",
                f"cores among {', '.join(map(str, sorted(os.sched_getaffinity(0))))}",
            )


def keep_to(allowed: Sequence[int]) -> None:
    """Bind all threads of this process, and so those and the processes that they will start. Nothing if empty."""
    for thread in Path("/proc/self/task").iterdir() if allowed else ():
        with contextlib.suppress(ProcessLookupError):  # it has ended meanwhile
            os.sched_setaffinity(int(thread.name), allowed)
