"""A server, its clients and a clock, on real sockets; and peers that break the protocol."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import zmq
import zmq.asyncio

from common.errors import AzrError
from common.messages import (
    Ack,
    AskNovelty,
    Hello,
    Leases,
    Novelty,
    WantLeases,
)
from common.transport import Client, Expected, Peer, Server, ipc_address
from common.types import TaskType
from common.wire import SCHEMA, decode, encode
from tests.fakes.clock import FakeClock

BEAT, RESEND = 5.0, 2.0
ACTOR = Peer("actor", 0)
EXPECTED = Expected(run="r", config_digest="d", incarnation=0, roles=frozenset({"actor", "trainer"}))


def hello(**changes: Any) -> Hello:
    given: dict[str, Any] = dict(schema=SCHEMA, run="r", role="actor", index=0, incarnation=0, config_digest="d")
    return Hello(**(given | changes))


def about(key: str) -> AskNovelty:
    """A question to the desk, which does what `key` says: slow, bad, bug, wrong."""
    return AskNovelty(TaskType.DEDUCTION, key, "")


class Desk:
    """A handler that keeps what it saw, and holds back answers until a test lets them go."""

    def __init__(self) -> None:
        self.seen: asyncio.Queue[Any] = asyncio.Queue()
        self.events: asyncio.Queue[tuple[str, Peer, str]] = asyncio.Queue()
        self.release = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.handled = 0

    async def handle(self, peer: Peer, message: Any) -> object:
        self.handled += 1
        self.seen.put_nowait(message)
        match message:
            case WantLeases():
                try:
                    await self.release.wait()
                except asyncio.CancelledError:
                    self.cancelled.set()
                    raise
                return Leases(())
            case AskNovelty(key="slow"):
                await self.release.wait()
                return Novelty("ok")
            case AskNovelty(key="bad"):
                raise AzrError("no such key")
            case AskNovelty(key="bug"):
                raise ZeroDivisionError("a bug")
            case AskNovelty(key="wrong"):
                return object()
        return Ack()

    def joined(self, peer: Peer, greeting: Hello) -> None:
        self.events.put_nowait(("joined", peer, greeting.run))

    def left(self, peer: Peer, reason: str) -> None:
        self.events.put_nowait(("left", peer, reason))


class Room:
    """A server with its desk and clock; what it makes is closed at the end of the test."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack, self.folder = stack, folder
        self.clock, self.desk = FakeClock(), Desk()

    async def server(self, bind: str | None = None, **changes: Any) -> Server:
        settings: dict[str, Any] = dict(
            handler=self.desk, expected=EXPECTED, credits=2, heartbeat=BEAT, clock=self.clock
        )
        server = Server(bind or ipc_address(self.folder, "s"), **(settings | changes))
        await server.start()
        self._stack.push_async_callback(server.close)
        return server

    def client(self, address: str, greeting: Hello | None = None, **changes: Any) -> Client:
        settings: dict[str, Any] = dict(clock=self.clock, resend=RESEND, patience=10 * BEAT)
        client = Client(address, greeting or hello(), **(settings | changes))
        self._stack.push_async_callback(client.close)
        return client

    async def connected(self, address: str, greeting: Hello | None = None, **changes: Any) -> Client:
        client = self.client(address, greeting, **changes)
        await client.connect(timeout=30)
        return client

    def raw(self, address: str, identity: bytes = b"raw") -> zmq.asyncio.Socket:
        """A peer without manners: it sends what a test says, and neither pings nor repeats."""
        context = zmq.asyncio.Context()
        socket = context.socket(zmq.DEALER)
        socket.routing_id = identity
        socket.connect(address)
        self._stack.callback(context.destroy, linger=0)
        return socket


async def ask(socket: zmq.asyncio.Socket, request_id: int, message: object) -> tuple[int, Any]:
    await socket.send_multipart(encode(request_id, message))
    return decode(await socket.recv_multipart())
