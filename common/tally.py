"""A ledger for states that change thousands of times a second, as those of a process that serves others.

Its states sum to its wall time like those of every ledger, but the spans of one drain are put together: one per state,
as long as the process was in it since the drain before, laid one behind the other. Their lengths are true, their places
within that time are not. One thread enters states and drains.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from common.ledger import Ledger

T = TypeVar("T")


class Tally(Ledger):
    def __init__(self, initial: str = "idle", now: Callable[[], float] | None = None) -> None:
        super().__init__(initial, now)
        self._spent: dict[str, float] = {}
        self._begin = self._since

    def enter(self, state: str) -> None:
        now = self.now()
        self._spent[self._state] = self._spent.get(self._state, 0.0) + now - self._since
        self._state, self._since = state, now

    @contextmanager
    def during(self, state: str) -> Iterator[None]:
        """`state` for code that does not wait; then the state before, so that these may be nested."""
        before = self._state
        self.enter(state)
        try:
            yield
        finally:
            self.enter(before)

    async def running(self, state: str, work: Coroutine[Any, Any, T]) -> T:
        """`work`, in `state` while it runs and not while it waits."""
        return await _stepped(self, state, work)

    def drain(self) -> tuple[dict[str, float], tuple[tuple[str, float, float], ...]]:
        self.enter(self._state)
        spent, self._spent = self._spent, {}
        at, self._begin = self._begin, self._since
        spans: list[tuple[str, float, float]] = []
        for state, seconds in spent.items():
            if seconds > 0.0:
                self._totals[state] = self._totals.get(state, 0.0) + seconds
                spans.append((state, at, at + seconds))
                at += seconds
        return dict(self._totals), tuple(spans)


@types.coroutine
def _stepped(tally: Tally, state: str, work: Coroutine[Any, Any, T]) -> Generator[Any, Any, T]:
    resume: Callable[[Any], Any] = work.send
    value: Any = None
    while True:
        before = tally.state
        tally.enter(state)
        try:
            awaited = resume(value)
        except StopIteration as end:
            result: T = end.value
            return result
        finally:
            tally.enter(before)
        try:
            value, resume = (yield awaited), work.send
        except BaseException as error:  # noqa: BLE001 - a cancellation, say: it is for `work`
            value, resume = error, work.throw
