"""The serving end of the transport: one ROUTER socket, many peers. The protocol is in common.transport.

Invariants: one live connection per (role, index); a request id under way is not started twice, and a
finished one is answered again from its kept reply; an error that is not an AzrError stops the server and
comes out of `serve_forever`. Silence is counted in beats, and any frame of a peer resets its count: a server
that was itself held up does not take its peers for dead.

Not guaranteed: exactly-once. A reply that was evicted, or a connection that was lost, makes a request run
again, so handlers must bear repetition. Notices may be lost.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import zmq
import zmq.asyncio

from common.clock import Clock
from common.errors import AzrError, ConfigError, WireError
from common.keys import Gatekeeper, Security, check_endpoint
from common.messages import Failed, Hello, Ping, Pong, RefusedHello, Welcome
from common.tally import Tally
from common.wire import LIMITS, NO_REQUEST, SCHEMA, Limits, decode, encode

MISSED_BEATS = 3
_KEPT_REPLIES, _KEPT_BYTES = 256, 1 << 26  # per connection
_REMEMBERED = 1024  # superseded or noisy connections
_LINGER_MS = 500

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Peer:
    role: str
    index: int

    def __str__(self) -> str:
        return f"{self.role} {self.index}"


@dataclass(frozen=True, slots=True)
class Expected:
    """What a HELLO must say to be let in."""

    run: str
    config_digest: str
    incarnation: int
    roles: frozenset[str]

    def refusal(self, hello: Hello) -> str:
        """Why `hello` is refused, naming every difference; empty if it is not."""
        pairs = (
            ("schema", hello.schema, SCHEMA),
            ("run", hello.run, self.run),
            ("config_digest", hello.config_digest, self.config_digest),
            ("incarnation", hello.incarnation, self.incarnation),
        )
        found = [f"{name} is {theirs!r}, here {ours!r}" for name, theirs, ours in pairs if theirs != ours]
        if hello.role not in self.roles:
            found.append(f"role {hello.role!r} is not one of {', '.join(sorted(self.roles))}")
        if hello.index < 0:
            found.append(f"index {hello.index} is negative")
        return "; ".join(found)


class Handler(Protocol):
    """What a server serves. `joined` and `left` are called in the order of events and must not block."""

    async def handle(self, peer: Peer, message: Any) -> object:
        """The reply. An AzrError becomes Failed(reason) at the client; anything else ends the server.

        Cancelled when the peer leaves.
        """
        ...

    def joined(self, peer: Peer, hello: Hello) -> None: ...

    def left(self, peer: Peer, reason: str) -> None: ...


@dataclass(slots=True)
class _Connection:
    peer: Peer
    missed: int = 0
    running: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    replies: OrderedDict[int, list[bytes]] = field(default_factory=OrderedDict)
    kept_bytes: int = 0

    def keep(self, request_id: int, frames: list[bytes]) -> None:
        self.replies[request_id] = frames
        self.kept_bytes += sum(map(len, frames))
        while len(self.replies) > 1 and (len(self.replies) > _KEPT_REPLIES or self.kept_bytes > _KEPT_BYTES):
            _, oldest = self.replies.popitem(last=False)
            self.kept_bytes -= sum(map(len, oldest))


class Server:
    """`bind`: an ipc:// endpoint, or tcp://HOST:0 for a free port of that host. `heartbeat` in seconds."""

    def __init__(
        self,
        bind: str,
        *,
        handler: Handler,
        expected: Expected,
        credits: int,
        heartbeat: float,
        clock: Clock,
        security: Security | None = None,
        limits: Limits = LIMITS,
        tally: Tally | None = None,
    ) -> None:
        """`tally`, if there is one, is in "transport" while the server itself works."""
        check_endpoint(bind, security)
        self._bind, self._handler, self._expected = bind, handler, expected
        self._welcome = Welcome(credits, expected.incarnation, heartbeat)
        self._clock, self._security, self._limits = clock, security, limits
        self._tally = tally
        self._connections: dict[bytes, _Connection] = {}
        self._latest: dict[Peer, bytes] = {}  # the connection that spoke last for a peer, alive or not
        self._superseded: OrderedDict[bytes, None] = OrderedDict()
        self._noisy: OrderedDict[bytes, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        # Beyond the credits come long polls and requests that a client gave up. What finds no room is left
        # out, and the client sends it again.
        self._room = 2 * credits + 16
        self.gatekeeper: Gatekeeper | None = None
        self.malformed = 0  # frames dropped so far

    # -- life --------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Bind and serve in the background. ConfigError if the endpoint cannot be bound."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._context = zmq.asyncio.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        self._socket.router_handover = True  # a client that reconnects keeps its place
        self._socket.maxmsgsize = self._limits.frame_bytes
        if self._security is not None and self._bind.startswith("tcp://"):
            self.gatekeeper = Gatekeeper(self._context, self._security)
            self._security.secure_server(self._socket)
            self._spawn(self.gatekeeper.serve())
        try:
            self._socket.bind(self._bind)
        except zmq.ZMQError as error:
            await self.close()
            raise ConfigError(f"cannot listen on {self._bind}: {error}") from error
        self._spawn(self._receive())
        self._spawn(self._watch())

    @property
    def address(self) -> str:
        """Where clients connect, with the port that was really bound."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    @property
    def peers(self) -> tuple[Peer, ...]:
        return tuple(connection.peer for connection in self._connections.values())

    async def serve_forever(self) -> None:
        """Wait for the end: returns after `close`, raises what broke the server."""
        await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Stop serving; requests under way are cancelled, messages already sent still go out."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self.gatekeeper is not None:
            self.gatekeeper.close()
        self._socket.close(linger=_LINGER_MS)
        await asyncio.to_thread(self._context.term)
        if not self._ended.done():
            self._ended.set_result(None)

    async def notify(self, peer: Peer, message: object) -> bool:
        """Send a notice. False if the peer has no live connection; true does not mean that it arrives."""
        identity = self._latest.get(peer)
        if identity is None or identity not in self._connections:
            return False
        await self._send(identity, encode(NO_REQUEST, message, self._limits))
        return True

    # -- loops -------------------------------------------------------------------------------------------

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._tally.running("transport", work) if self._tally else work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is None or self._ended.done():
            return
        _log.error("server %s stops", self._bind, exc_info=error)
        self._ended.set_exception(error)
        for other in self._tasks:
            other.cancel()

    async def _receive(self) -> None:
        while True:
            identity, *frames = await self._socket.recv_multipart()
            await asyncio.sleep(0)  # receiving what is already there does not yield, and others want to run
            try:
                request_id, message = decode(frames, self._limits)
            except WireError as error:
                self._drop(identity, error)
                continue
            if isinstance(message, Hello):
                await self._send(identity, encode(request_id, self._greet(identity, message)))
            elif identity in self._connections:
                await self._dispatch(identity, self._connections[identity], request_id, message)
            else:
                await self._send(identity, encode(NO_REQUEST, Failed("unknown connection: say HELLO")))

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(self._welcome.heartbeat)
            for identity, connection in list(self._connections.items()):
                connection.missed += 1
                if connection.missed > MISSED_BEATS:
                    self._leave(identity, f"silent for {MISSED_BEATS} heartbeats")

    async def _dispatch(self, identity: bytes, connection: _Connection, request_id: int, message: Any) -> None:
        connection.missed = 0
        if isinstance(message, Ping):
            await self._send(identity, encode(NO_REQUEST, Pong()))
        elif request_id in connection.replies:
            await self._send(identity, connection.replies[request_id])
        elif request_id not in connection.running and len(connection.running) < self._room:
            work = self._answer(identity, connection, request_id, message)
            connection.running[request_id] = self._spawn(work)

    async def _answer(self, identity: bytes, connection: _Connection, request_id: int, message: Any) -> None:
        try:
            reply = await self._handler.handle(connection.peer, message)
            frames = encode(request_id, reply, self._limits)
        except AzrError as error:
            frames = encode(request_id, Failed(str(error)))
        finally:
            connection.running.pop(request_id, None)
        connection.keep(request_id, frames)
        await self._send(identity, frames)

    async def _send(self, identity: bytes, frames: list[bytes]) -> None:
        await self._socket.send_multipart([identity, *frames])

    # -- membership --------------------------------------------------------------------------------------

    def _greet(self, identity: bytes, hello: Hello) -> Welcome | RefusedHello:
        reason = self._expected.refusal(hello)
        peer, known = Peer(hello.role, hello.index), self._connections.get(identity)
        if identity in self._superseded:
            reason = "a newer connection has taken this place"
        elif known is not None and known.peer != peer:
            reason = f"this connection is {known.peer}"
        if reason:
            _log.warning("refused %s: %s", peer, reason)
            return RefusedHello(reason)
        if known is not None:
            known.missed = 0
            return self._welcome
        previous = self._latest.get(peer)
        if previous is not None and previous != identity:
            _remember(self._superseded, previous)
            self._leave(previous, "a newer connection has taken its place")
        self._latest[peer] = identity
        self._connections[identity] = _Connection(peer)
        self._handler.joined(peer, hello)
        return self._welcome

    def _leave(self, identity: bytes, reason: str) -> None:
        connection = self._connections.pop(identity, None)
        if connection is None:
            return
        for task in connection.running.values():
            task.cancel()
        self._handler.left(connection.peer, reason)

    def _drop(self, identity: bytes, error: WireError) -> None:
        self.malformed += 1
        if identity in self._noisy:
            return
        _remember(self._noisy, identity)
        connection = self._connections.get(identity)
        who = str(connection.peer) if connection else "an unknown connection"
        _log.warning("dropped a malformed message of %s (told once): %s", who, error)


def _remember(identities: OrderedDict[bytes, None], identity: bytes) -> None:
    identities[identity] = None
    if len(identities) > _REMEMBERED:
        identities.popitem(last=False)
