"""A simulated engine: sequences in virtual time, decoded side by side at a rate that depends on how many they are.

All running sequences are as fast as each other, so one number suffices: the tokens that a sequence would have got that
had been running all the time. A sequence of n tokens ends when that has grown by n, and versions change at known values
of it, from which the spans of every sequence follow.
"""

from __future__ import annotations

import asyncio
import heapq
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from common.types import Span


@dataclass(slots=True)
class _Request:
    lengths: Sequence[int]
    spans: list[tuple[Span, ...]]
    missing: int
    done: asyncio.Future[None]


class SimulatedEngine:
    """`seconds(c)`: of a decoding step with c sequences; `slots`: how many may run, others wait their turn."""

    def __init__(self, seconds: Callable[[int], float], slots: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._seconds, self._slots = seconds, slots
        self._progress = 0.0  # tokens of a sequence that always ran
        self._since = self._loop.time()
        self._paused = False
        self._queue: deque[tuple[_Request, int]] = deque()
        self._running: list[tuple[float, int, _Request, int, float]] = []  # heap: end, order, which one, start
        self._order = 0
        self._marks, self._versions = [0.0], [0]
        self._timer: asyncio.TimerHandle | None = None
        self.tokens = 0

    async def generate(self, lengths: Sequence[int]) -> list[tuple[Span, ...]]:
        """The spans of sequences of these lengths, once all are there."""
        request = _Request(lengths, [()] * len(lengths), len(lengths), self._loop.create_future())
        self._advance()
        self._queue.extend((request, index) for index in range(len(lengths)))
        self._schedule()
        try:
            await request.done
        finally:
            if not request.done.done() or request.done.cancelled():
                self._drop(request)
        return request.spans

    def pause(self) -> None:
        self._advance()
        self._paused = True
        self._schedule()

    def resume(self, version: int) -> None:
        """Go on; what is sampled from here on is of `version`."""
        self._advance()
        self._paused = False
        self._marks.append(self._progress)
        self._versions.append(version)
        self._schedule()

    def _drop(self, request: _Request) -> None:
        self._advance()
        self._queue = deque(item for item in self._queue if item[0] is not request)
        self._running = [item for item in self._running if item[2] is not request]
        heapq.heapify(self._running)
        self._schedule()

    def _advance(self) -> None:
        now = self._loop.time()
        if self._running and not self._paused:
            self._progress += (now - self._since) / self._seconds(len(self._running))
        self._since = now

    def _schedule(self) -> None:
        while self._queue and len(self._running) < self._slots:
            request, index = self._queue.popleft()
            self._order += 1
            end = self._progress + request.lengths[index]
            heapq.heappush(self._running, (end, self._order, request, index, self._progress))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._running and not self._paused:
            left = max(0.0, self._running[0][0] - self._progress)
            self._timer = self._loop.call_later(left * self._seconds(len(self._running)), self._finish)

    def _finish(self) -> None:
        self._advance()
        self._timer = None
        while self._running and self._running[0][0] <= self._progress + 1e-6:
            end, _, request, index, start = heapq.heappop(self._running)
            request.spans[index] = self._spans(start, end, request.lengths[index])
            request.missing -= 1
            self.tokens += request.lengths[index]
            if request.missing == 0 and not request.done.done():
                request.done.set_result(None)
        self._schedule()

    def _spans(self, start: float, end: float, length: int) -> tuple[Span, ...]:
        """A token belongs to the version that was in force when it was complete."""
        first = bisect_right(self._marks, start) - 1
        found: list[Span] = []
        begin = 0
        for at in range(first, len(self._marks)):
            last = at + 1 == len(self._marks) or self._marks[at + 1] >= end
            until = length if last else min(length, int(self._marks[at + 1] - start))
            if until > begin:
                found.append(Span(self._versions[at], begin, until))
                begin = until
            if last:
                break
        return tuple(found)
