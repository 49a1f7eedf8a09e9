"""Answers by content: remembered, under way, or still to be found; equal questions are asked once at a time."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Cache(Generic[Key, Value]):
    def __init__(self, entries: int) -> None:
        """`entries` are remembered, the least recently used leave first; 0: nothing is."""
        self._entries = entries
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._running: dict[Key, asyncio.Future[Value]] = {}

    def __len__(self) -> int:
        return len(self._values)

    def claim(self, keys: Iterable[Key]) -> tuple[list[Value | asyncio.Future[Value]], list[Key]]:
        """What is known or awaited for each key, and the keys that the caller has to `settle` or `fail` now."""
        found: list[Value | asyncio.Future[Value]] = []
        fresh: list[Key] = []
        for key in keys:
            if key in self._values:
                self._values.move_to_end(key)
                found.append(self._values[key])
                continue
            if key not in self._running:
                self._running[key] = asyncio.get_running_loop().create_future()
                fresh.append(key)
            found.append(self._running[key])
        return found, fresh

    def settle(self, key: Key, value: Value, *, keep: bool) -> None:
        """Tell all who wait, and remember if `keep`."""
        if keep and self._entries:
            self._values[key] = value
            if len(self._values) > self._entries:
                self._values.popitem(last=False)
        waiting = self._running.pop(key)
        if not waiting.done():
            waiting.set_result(value)

    def fail(self, error: BaseException, keys: Iterable[Key]) -> None:
        """Tell all who still wait for one of `keys` that there will be no answer."""
        for key in keys:
            waiting = self._running.pop(key, None)
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
                waiting.exception()  # retrieved: perhaps nobody waits any more


async def collect(found: Sequence[Value | asyncio.Future[Value]]) -> list[Value]:
    """Await what is under way; the end of this caller does not end it for others."""
    for answer in found:
        if isinstance(answer, asyncio.Future) and not answer.done():
            await _settled(answer)
    return [f.result() if isinstance(f, asyncio.Future) else f for f in found]


def _settled(answer: asyncio.Future[Value]) -> asyncio.Future[None]:
    """Done when `answer` is; unlike it, the caller's own to cancel. Cheaper than asyncio.shield."""
    settled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    answer.add_done_callback(lambda _: None if settled.done() else settled.set_result(None))
    return settled
