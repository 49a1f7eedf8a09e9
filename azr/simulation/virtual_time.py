"""Virtual time: an asyncio loop that never waits. When nothing is ready, its clock leaps to the next timer.

What runs in it sees the times it asked for, in the order it asked for them, however long the computer takes; so a run
is a pure function of its inputs. Nothing outside can wake it: no sockets, no threads, no signals. Where a real loop
would wait for ever, this one raises Stuck.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

from common.errors import PartFailed

T = TypeVar("T")


class Stuck(PartFailed):
    """Everybody waits for somebody else."""

    def __init__(self) -> None:
        super().__init__("simulation", "nobody has anything left to do, and the run is not over")


class _Leap(selectors.SelectSelector):
    """A selector that does not select: time passes instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck
        self.now += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """Starts at 0 seconds."""

    def __init__(self) -> None:
        self._leap = _Leap()
        super().__init__(self._leap)
        self._clock_resolution = (
            1e-6  # the default vanishes beside a time of some months, and its timers never come due
        )

    def time(self) -> float:
        return self._leap.now


class VirtualClock:
    """A common.clock.Clock of the running loop."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


def run(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work` in virtual time; what it leaves running is cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
