"""The asking end of the transport: one DEALER socket to one server. The protocol is in common.transport.

Invariants: every request ends as its reply, as WireError (the server answered Failed) or as PartFailed (the
server is gone, refuses this client, or a timeout passed). Sending never blocks: what the socket does not
take is sent again with the unanswered. After `lost` is set every request fails at once.

Not guaranteed: that a request ran only once, or that one which failed did not run.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

import zmq
import zmq.asyncio

from common.clock import Clock, within
from common.errors import PartFailed, Refused, WireError
from common.keys import Security, check_endpoint
from common.messages import (
    Failed,
    Hello,
    Ping,
    Pong,
    RefusedHello,
    WantLeases,
    WantPush,
    WantShare,
    Welcome,
)
from common.wire import LIMITS, NO_REQUEST, Limits, decode, encode

LONG_POLLS = (WantLeases, WantShare, WantPush)  # may stay unanswered for long, and take no credit

_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(slots=True)
class _Pending:
    frames: list[bytes]
    reply: asyncio.Future[Any]
    sent: float


def _ignore(notice: Any) -> None:
    pass


class Client:
    """A client of the server at `address`, which errors call `server`.

    `resend`, `patience`: seconds. The unanswered is sent again after `resend`; a server from which nothing
    comes for `patience` counts as gone. `on_notice` runs in the receiving task and must not block; if it
    raises, the client fails with that error.
    """

    def __init__(
        self,
        address: str,
        hello: Hello,
        *,
        clock: Clock,
        on_notice: Callable[[Any], None] = _ignore,
        security: Security | None = None,
        resend: float = 5.0,
        patience: float = 60.0,
        limits: Limits = LIMITS,
        server: str = "server",
    ) -> None:
        check_endpoint(address, security)
        self._address, self._hello, self._on_notice = address, hello, on_notice
        self._clock, self._security, self._limits = clock, security, limits
        self._resend, self._patience, self._server = resend, patience, server
        self._identity = b"c" + os.urandom(15)  # a leading zero byte is libzmq's own
        self._context = zmq.asyncio.Context()
        self._ids = itertools.count(NO_REQUEST + 1)
        self._pending: dict[int, _Pending] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._rejoining = False
        self._missed = 0
        self.welcome: Welcome | None = None
        self.lost = asyncio.Event()
        self.failure: BaseException | None = None  # why it was lost
        self.malformed = 0  # messages dropped so far

    # -- life --------------------------------------------------------------------------------------------

    async def connect(self, timeout: float) -> Welcome:
        """Say HELLO. Refused if it is turned down, PartFailed if nobody answers within `timeout` seconds.

        A client that could not connect is closed.
        """
        try:
            self.welcome = await self._greet(timeout)
        finally:
            if self.welcome is None:
                await self.close()
        self._credits = asyncio.Semaphore(self.welcome.credits)
        self._spawn(self._beat(self.welcome.heartbeat))
        return self.welcome

    async def _greet(self, timeout: float) -> Welcome:
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.routing_id = self._identity
        self._socket.maxmsgsize = self._limits.frame_bytes
        if self._security is not None and self._address.startswith("tcp://"):
            self._security.secure_client(self._socket)
        self._socket.connect(self._address)
        self._spawn(self._receive())
        self._spawn(self._repeat())
        reply = await self._within(self._ask(self._hello), timeout, "HELLO")
        if isinstance(reply, RefusedHello):
            raise Refused(f"{self._server} at {self._address} refused {self._me}: {reply.reason}")
        if not isinstance(reply, Welcome):
            raise PartFailed(self._server, f"answered HELLO with {type(reply).__name__}")
        return reply

    async def request(self, message: object, timeout: float | None = None) -> Any:
        """The reply. Waits for a credit unless `message` is a long poll; `timeout` (s) covers both waits."""
        work = self._ask(message) if isinstance(message, LONG_POLLS) else self._ask_with_credit(message)
        reply = await (work if timeout is None else self._within(work, timeout, type(message).__name__))
        if isinstance(reply, Failed):
            raise WireError(reply.reason)
        return reply

    async def close(self) -> None:
        """Stop; requests under way fail with PartFailed."""
        self._end(PartFailed(self._server, "this client was closed"))
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._context.destroy(linger=0)

    # -- requests ----------------------------------------------------------------------------------------

    @property
    def _me(self) -> str:
        return f"{self._hello.role} {self._hello.index}"

    async def _ask_with_credit(self, message: object) -> Any:
        async with self._credits:
            return await self._ask(message)

    async def _ask(self, message: object) -> Any:
        if self.failure is not None:
            raise self.failure
        request_id = next(self._ids)
        frames = encode(request_id, message, self._limits)
        pending = _Pending(frames, asyncio.get_running_loop().create_future(), self._clock.now())
        self._pending[request_id] = pending
        try:
            await self._send(frames)
            return await pending.reply
        finally:
            del self._pending[request_id]

    async def _within(self, work: Coroutine[Any, Any, Any], seconds: float, what: str) -> Any:
        try:
            return await within(self._clock, seconds, work)
        except TimeoutError:
            hint = "see whether it is running, and with which configuration and keys"
            reason = f"no answer to {what} from {self._address} within {seconds:g} s"
            raise PartFailed(self._server, reason, hint=hint) from None

    async def _send(self, frames: list[bytes]) -> None:
        try:
            await self._socket.send_multipart(frames, flags=zmq.DONTWAIT)
        except zmq.Again:
            _log.info("%s: the queue to %s is full", self._me, self._server)

    # -- loops -------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if self.failure is None:
            _log.error("%s lost %s", self._me, self._server, exc_info=error)
            self._end(error)
            self.lost.set()

    def _end(self, error: BaseException) -> None:
        self.failure = self.failure or error
        for pending in self._pending.values():
            if not pending.reply.done():
                pending.reply.set_exception(error)

    async def _receive(self) -> None:
        while True:
            frames = await self._socket.recv_multipart()
            try:
                request_id, message = decode(frames, self._limits)
            except WireError as error:
                self.malformed += 1
                if self.malformed == 1:
                    _log.warning("dropped a malformed message of %s (told once): %s", self._server, error)
                continue
            self._missed = 0
            if request_id == NO_REQUEST:
                self._note(message)
            elif request_id in self._pending and not self._pending[request_id].reply.done():
                self._pending[request_id].reply.set_result(message)

    def _note(self, message: Any) -> None:
        if isinstance(message, Pong):
            return
        if not isinstance(message, Failed):
            self._on_notice(message)
        elif self.welcome is not None and not self._rejoining:
            self._rejoining = True
            self._spawn(self._rejoin())

    async def _rejoin(self) -> None:
        reply = await self._ask(self._hello)
        self._rejoining = False
        if not isinstance(reply, Welcome):
            reason = reply.reason if isinstance(reply, RefusedHello) else f"answered {type(reply).__name__}"
            raise PartFailed(self._server, f"no longer accepts {self._me}: {reason}")
        for pending in list(self._pending.values()):
            await self._send_again(pending)

    async def _send_again(self, pending: _Pending) -> None:
        pending.sent = self._clock.now()
        await self._send(pending.frames)

    async def _repeat(self) -> None:
        while True:
            await self._clock.sleep(self._resend)
            overdue = self._clock.now() - self._resend
            for pending in [p for p in self._pending.values() if p.sent <= overdue]:
                await self._send_again(pending)

    async def _beat(self, heartbeat: float) -> None:
        while True:
            await self._clock.sleep(heartbeat)
            self._missed += 1
            if self._missed * heartbeat > self._patience:
                raise PartFailed(self._server, f"silent for {self._patience:g} s at {self._address}")
            await self._send(encode(NO_REQUEST, Ping()))
