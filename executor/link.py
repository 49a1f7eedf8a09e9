"""One connection to a sandboxed process: requests leave at once, replies come back in the same order.

Only the oldest unanswered request is being served, so only it is timed, and only it gets `Died` when the connection
ends; those behind it get `Unserved` and may be asked again elsewhere. A reply nobody waits for any more is dropped.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from executor import frames

_MAX_MESSAGE = 1 << 28


class Died(Exception):
    """The process ended, or had to be ended, while it served this request."""


class Unserved(Exception):
    """The process ended before it came to this request."""


@dataclass(frozen=True, slots=True)
class _Asked:
    reply: asyncio.Future[bytes]
    timeout: float


class Link(asyncio.Protocol):
    def __init__(self, ended: Callable[[str], None]) -> None:
        """`ended` is called once, with the reason, when the connection closes, stays silent or talks nonsense."""
        self._ended = ended
        self._asked: deque[_Asked] = deque()
        self._buffer = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None
        self._loop = asyncio.get_running_loop()

    def ask(self, body: bytes, timeout: float) -> asyncio.Future[bytes]:
        """Send a request; `timeout` (s) runs from when it is the oldest. The future may be cancelled. Unserved if the
        connection has ended."""
        if self._transport is None:
            raise Unserved("closed")
        self._transport.write(frames.LENGTH.pack(len(body)) + body)
        return self.expect(timeout)

    def expect(self, timeout: float) -> asyncio.Future[bytes]:
        """One more reply, to something not asked for."""
        asked = _Asked(self._loop.create_future(), timeout)
        self._asked.append(asked)
        if len(self._asked) == 1:
            self._time()
        return asked.reply

    def end(self, reason: str) -> None:
        """Close, and fail what is unanswered. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
            self._ended(reason)
        failure: type[Exception] = Died
        while self._asked:
            reply = self._asked.popleft().reply
            if not reply.done():
                reply.set_exception(failure(reason))
            failure = Unserved

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # other event loops have classes of their own

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(str(exc or "it closed its socket"))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        start = frames.LENGTH.size
        while len(self._buffer) >= start:
            (length,) = frames.LENGTH.unpack_from(self._buffer)
            if length > _MAX_MESSAGE or not self._asked:
                self.end(f"a message of {length} bytes" if self._asked else "an answer to nothing")
                return
            if len(self._buffer) < start + length:
                return
            reply = self._asked.popleft().reply
            if not reply.done():
                reply.set_result(bytes(self._buffer[start : start + length]))
            del self._buffer[: start + length]
            self._time()

    def _time(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._asked:
            timeout = self._asked[0].timeout
            self._timer = self._loop.call_later(timeout, self.end, f"silent for {timeout:g} s")
