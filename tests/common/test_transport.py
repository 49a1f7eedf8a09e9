import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio

from common.errors import AzrError, ConfigError, PartFailed, Refused, WireError
from common.messages import (
    Ack,
    Cancel,
    Failed,
    Hello,
    Known,
    KnownKeys,
    Leases,
    Ping,
    Pong,
    RefusedHello,
    Renew,
    Stop,
    WantLeases,
    Welcome,
)
from common.transport import Client, Expected, Peer, Security, Server, ipc_address, private_folder
from common.wire import NO_REQUEST, SCHEMA, Limits, decode, encode
from tests.fakes.clock import FakeClock

BEAT, RESEND = 5.0, 2.0
ACTOR = Peer("actor", 0)
EXPECTED = Expected(run="r", config_digest="d", incarnation=0, roles=frozenset({"actor", "trainer"}))


def hello(**changes: Any) -> Hello:
    given: dict[str, Any] = dict(schema=SCHEMA, run="r", role="actor", index=0, incarnation=0, config_digest="d")
    return Hello(**(given | changes))


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
            case Known(("slow",)):
                await self.release.wait()
                return KnownKeys((True,))
            case Known(("bad",)):
                raise AzrError("no such key")
            case Known(("bug",)):
                raise ZeroDivisionError("a bug")
            case Known(("wrong",)):
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


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    folder = private_folder()
    async with AsyncExitStack() as stack:
        yield Room(stack, folder)
    for left_over in folder.iterdir():
        left_over.unlink()
    folder.rmdir()


async def ask(socket: zmq.asyncio.Socket, request_id: int, message: object) -> tuple[int, Any]:
    await socket.send_multipart(encode(request_id, message))
    return decode(await socket.recv_multipart())


# -- handshake --------------------------------------------


async def test_a_client_is_welcomed_and_served(room: Room) -> None:
    server = await room.server()
    client = room.client(server.address)
    assert await client.connect(timeout=30) == Welcome(credits=2, incarnation=0, heartbeat=BEAT)
    assert await client.request(Renew((1, 2))) == Ack()
    assert await room.desk.events.get() == ("joined", ACTOR, "r")
    assert room.desk.seen.get_nowait() == Renew((1, 2))
    assert server.peers == (ACTOR,)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schema": 1}, "schema is 1"),
        ({"run": "other"}, "run is 'other', here 'r'"),
        ({"config_digest": "x"}, "config_digest is 'x', here 'd'"),
        ({"incarnation": 3}, "incarnation is 3, here 0"),
        ({"role": "cook"}, "role 'cook' is not one of actor, trainer"),
        ({"index": -1}, "index -1"),
    ],
)
async def test_a_refusal_names_the_difference(room: Room, changes: dict[str, Any], named: str) -> None:
    server = await room.server()
    with pytest.raises(Refused, match=named):
        await room.client(server.address, hello(**changes)).connect(timeout=30)
    assert room.desk.events.empty()


async def test_nobody_there(room: Room) -> None:
    connecting = asyncio.create_task(room.client(ipc_address(room.folder, "s")).connect(timeout=30))
    await room.clock.advance(31)
    with pytest.raises(PartFailed, match=r"no answer to HELLO from ipc.* within 30 s"):
        await connecting


async def test_a_client_may_come_before_its_server(room: Room) -> None:
    client = room.client(ipc_address(room.folder, "s"))
    connecting = asyncio.create_task(client.connect(timeout=30))
    await room.clock.advance(RESEND)
    await room.server()
    await connecting
    assert room.desk.events.qsize() == 1


async def test_a_newer_connection_takes_the_place_over(room: Room) -> None:
    server = await room.server()
    older = await room.connected(server.address)
    await room.connected(server.address)
    events = [await room.desk.events.get() for _ in range(3)]
    assert [kind for kind, _, _ in events] == ["joined", "left", "joined"]
    assert server.peers == (ACTOR,)
    with pytest.raises(PartFailed, match="a newer connection has taken this place"):
        await older.request(Renew(()))
    assert older.lost.is_set()
    assert room.desk.events.empty()


async def test_a_connection_cannot_be_two_peers(room: Room) -> None:
    server = await room.server()
    socket = room.raw(server.address)
    assert isinstance((await ask(socket, 1, hello()))[1], Welcome)
    assert await ask(socket, 2, hello(index=1)) == (2, RefusedHello("this connection is actor 0"))


# -- requests --------------------------------------------


async def test_a_long_poll_blocks_nobody(room: Room) -> None:
    server = await room.server()
    client, other = await room.connected(server.address), await room.connected(server.address, hello(index=1))
    polls = [asyncio.create_task(client.request(WantLeases(1))) for _ in range(5)]
    assert await client.request(Renew(())) == Ack()
    assert await other.request(Renew(())) == Ack()
    room.desk.release.set()
    assert await asyncio.gather(*polls) == [Leases(())] * 5


async def test_credits_bound_ordinary_requests_and_not_long_polls(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    slow = [asyncio.create_task(client.request(Known(("slow",)))) for _ in range(3)]
    poll = asyncio.create_task(client.request(WantLeases(1)))
    assert [await room.desk.seen.get() for _ in range(3)] == [Known(("slow",)), Known(("slow",)), WantLeases(1)]
    assert room.desk.handled == 3
    room.desk.release.set()
    assert await asyncio.gather(*slow) == [KnownKeys((True,))] * 3
    assert await poll == Leases(())
    assert room.desk.handled == 4


async def test_a_failed_request_is_a_wire_error(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    with pytest.raises(WireError, match="no such key"):
        await client.request(Known(("bad",)))
    with pytest.raises(WireError, match="object is not a message"):
        await client.request(Known(("wrong",)))
    assert await client.request(Renew(())) == Ack()


async def test_a_bug_in_the_handler_ends_the_server_loudly(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    asking = asyncio.create_task(client.request(Known(("bug",))))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        await server.serve_forever()
    assert "stops" in caplog.text
    await client.close()
    with pytest.raises(PartFailed, match="closed"):
        await asking


async def test_close_ends_serve_forever(room: Room) -> None:
    server = await room.server()
    serving = asyncio.create_task(server.serve_forever())
    await server.close()
    await serving


async def test_a_request_times_out(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    asking = asyncio.create_task(client.request(Known(("slow",)), timeout=7))
    await room.desk.seen.get()
    await room.clock.advance(8)
    with pytest.raises(PartFailed, match=r"no answer to Known from .* within 7 s"):
        await asking
    assert await client.request(Renew(())) == Ack()


async def test_a_cancelled_request_gives_its_credit_back(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    for _ in range(5):
        asking = asyncio.create_task(client.request(Known(("slow",))))
        await room.desk.seen.get()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert await client.request(Renew(())) == Ack()


# -- repetition --------------------------------------------


async def test_a_repeated_id_is_handled_once(room: Room) -> None:
    server = await room.server()
    socket = room.raw(server.address)
    await ask(socket, 1, hello())
    for _ in range(3):
        await socket.send_multipart(encode(2, Known(("slow",))))
    assert await ask(socket, 3, Renew(())) == (3, Ack())
    room.desk.release.set()
    assert decode(await socket.recv_multipart()) == (2, KnownKeys((True,)))
    assert await ask(socket, 2, Known(("slow",))) == (2, KnownKeys((True,)))
    assert await ask(socket, 3, Renew(())) == (3, Ack())
    assert room.desk.handled == 2


async def test_what_is_lost_is_sent_again(room: Room) -> None:
    context = zmq.asyncio.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(ipc_address(room.folder, "s"))
    client = room.client(ipc_address(room.folder, "s"))
    connecting = asyncio.create_task(client.connect(timeout=30))
    try:
        first = await router.recv_multipart()  # and no answer, as if it had been lost
        await room.clock.advance(RESEND)
        identity, *frames = await router.recv_multipart()
        assert [identity, *frames] == first
        request_id, _ = decode(frames)
        await router.send_multipart([identity, *encode(request_id, Welcome(2, 0, 100.0))])
        await connecting
        asking = asyncio.create_task(client.request(Renew(())))
        sent = await router.recv_multipart()
        await room.clock.advance(RESEND)
        assert await router.recv_multipart() == sent
        for _ in range(2):  # the second answer is one too many, and does no harm
            await router.send_multipart([identity, *encode(decode(sent[1:])[0], Ack())])
        assert await asking == Ack()
    finally:
        context.destroy(linger=0)


async def test_a_restarted_server_is_greeted_again_and_asked_again(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    polls = [asyncio.create_task(client.request(WantLeases(n))) for n in (1, 2)]
    assert [await room.desk.seen.get() for _ in polls] == [WantLeases(1), WantLeases(2)]
    await server.close()
    room.desk = Desk()
    await room.server()
    await room.clock.advance(BEAT)  # the next ping meets a server that does not know the client
    assert await room.desk.events.get() == ("joined", ACTOR, "r")
    assert [await room.desk.seen.get() for _ in polls] == [WantLeases(1), WantLeases(2)]
    room.desk.release.set()
    assert await asyncio.gather(*polls) == [Leases(())] * 2
    assert room.desk.handled == 2


async def test_a_server_of_another_incarnation_ends_the_client(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    polling = asyncio.create_task(client.request(WantLeases(1)))
    await room.desk.seen.get()
    await server.close()
    await room.server(expected=Expected("r", "d", 1, EXPECTED.roles))
    await room.clock.advance(BEAT)
    with pytest.raises(PartFailed, match="incarnation is 0, here 1"):
        await polling
    assert client.lost.is_set()


# -- silence --------------------------------------------


async def test_a_silent_peer_leaves_and_its_requests_are_cancelled(room: Room) -> None:
    server = await room.server()
    socket = room.raw(server.address)
    await ask(socket, 1, hello())
    await room.desk.events.get()
    await socket.send_multipart(encode(2, WantLeases(1)))
    await room.desk.seen.get()
    await room.clock.advance(3 * BEAT)
    assert server.peers == (ACTOR,)
    await room.clock.advance(BEAT)
    assert room.desk.events.get_nowait() == ("left", ACTOR, "silent for 3 heartbeats")
    await room.desk.cancelled.wait()
    assert server.peers == ()
    assert not await server.notify(ACTOR, Stop("over"))
    request_id, answer = await ask(socket, 3, Renew(()))
    assert (request_id, type(answer)) == (NO_REQUEST, Failed)
    assert isinstance((await ask(socket, 4, hello()))[1], Welcome)
    assert await room.desk.events.get() == ("joined", ACTOR, "r")


async def test_pings_keep_a_peer_alive(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    socket = room.raw(server.address)
    await ask(socket, 1, hello(index=1))
    for _ in range(9):
        await room.clock.advance(BEAT)
        assert await client.request(Renew(())) == Ack()  # pings travel in order: this one has arrived
        assert await ask(socket, NO_REQUEST, Ping()) == (NO_REQUEST, Pong())
    assert server.peers == (ACTOR, Peer("actor", 1))


async def test_a_silent_server_is_lost(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address, patience=4 * BEAT)
    slow = [asyncio.create_task(client.request(Known(("slow",)))) for _ in range(3)]
    await room.desk.seen.get()
    await server.close()
    await room.clock.advance(5 * BEAT)
    for asking in slow:
        with pytest.raises(PartFailed, match="silent for 20 s"):
            await asking
    assert client.lost.is_set()
    with pytest.raises(PartFailed, match="silent for 20 s"):
        await client.request(Renew(()))


# -- notices --------------------------------------------


async def test_notices_reach_the_peer_they_are_for(room: Room) -> None:
    server = await room.server()
    notices: list[asyncio.Queue[Any]] = [asyncio.Queue(), asyncio.Queue()]
    for index, queue in enumerate(notices):
        await room.connected(server.address, hello(index=index), on_notice=queue.put_nowait)
    assert await server.notify(Peer("actor", 1), Cancel((7,)))
    assert await notices[1].get() == Cancel((7,))
    assert notices[0].empty()
    assert not await server.notify(Peer("trainer", 0), Cancel((7,)))


async def test_a_failing_notice_handler_fails_the_client(room: Room) -> None:
    def broken(notice: object) -> None:
        raise ZeroDivisionError("a bug")

    server = await room.server()
    client = await room.connected(server.address, on_notice=broken)
    await server.notify(ACTOR, Stop("over"))
    await client.lost.wait()
    with pytest.raises(ZeroDivisionError):
        await client.request(Renew(()))


# -- bad input --------------------------------------------


def _cut(frames: list[bytes]) -> list[bytes]:
    return frames[:1]


def _flip(frames: list[bytes]) -> list[bytes]:
    return [frames[0], frames[1][:-1] + bytes([frames[1][-1] ^ 1])]


@pytest.mark.parametrize("damage", [_cut, _flip])
async def test_malformed_messages_are_counted_told_once_and_dropped(
    room: Room, caplog: pytest.LogCaptureFixture, damage: Callable[[list[bytes]], list[bytes]]
) -> None:
    server = await room.server()
    socket = room.raw(server.address)
    await ask(socket, 1, hello())
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await socket.send_multipart(damage(encode(2, Renew((1,)))))
        assert await ask(socket, 3, Renew(())) == (3, Ack())
    assert server.malformed == 3
    assert caplog.text.count("malformed message of actor 0") == 1
    assert room.desk.handled == 1


async def test_a_client_drops_malformed_messages_too(room: Room) -> None:
    context = zmq.asyncio.Context()
    router = context.socket(zmq.ROUTER)
    router.bind(ipc_address(room.folder, "s"))
    client = room.client(ipc_address(room.folder, "s"))
    connecting = asyncio.create_task(client.connect(timeout=30))
    try:
        identity, *frames = await router.recv_multipart()
        await router.send_multipart([identity, b"nonsense"])
        await router.send_multipart([identity, *encode(decode(frames)[0], Welcome(1, 0, BEAT))])
        await connecting
        assert client.malformed == 1
    finally:
        context.destroy(linger=0)


async def test_what_is_too_large_fails_at_its_sender(room: Room) -> None:
    small = Limits(frame_bytes=2000)
    server = await room.server(limits=small)
    client = await room.connected(server.address, limits=small)
    with pytest.raises(WireError, match="the limit is 2000"):
        await client.request(Renew(tuple(range(3000))))
    assert await client.request(Renew(())) == Ack()


# -- endpoints --------------------------------------------


async def test_tcp_with_keys(room: Room) -> None:
    keys = Security.generate()
    server = await room.server("tcp://127.0.0.1:0", security=keys)
    assert not server.address.endswith(":0")
    mine = Security.generate(keys.public)
    keys.add(mine.public)
    client = await room.connected(server.address, security=mine)
    assert await client.request(Renew(())) == Ack()


async def test_a_stranger_is_refused_until_it_is_allowed(room: Room) -> None:
    keys = Security.generate()
    server = await room.server("tcp://127.0.0.1:0", security=keys)
    stranger = Security.generate(keys.public)
    connecting = asyncio.create_task(room.client(server.address, security=stranger).connect(timeout=30))
    assert server.gatekeeper is not None
    await server.gatekeeper.refusal.wait()
    await room.clock.advance(31)
    with pytest.raises(PartFailed, match="no answer to HELLO"):
        await connecting
    assert room.desk.events.empty()
    keys.add(stranger.public)
    await room.connected(server.address, security=stranger)


async def test_a_stranger_without_keys_is_not_heard(room: Room) -> None:
    keys = Security.generate()
    server = await room.server("tcp://127.0.0.1:0", security=keys)
    plain = room.raw(server.address)
    monitor = plain.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED)
    await plain.send_multipart(encode(1, hello()))
    await monitor.recv_multipart()
    plain.disable_monitor()
    assert room.desk.events.empty()
    assert server.peers == ()


async def test_one_process_may_hold_several_guarded_servers(room: Room) -> None:
    for _ in range(2):
        keys = Security.generate()
        server = await room.server("tcp://127.0.0.1:0", security=keys)
        mine = Security.generate(keys.public)
        keys.add(mine.public)
        assert await (await room.connected(server.address, security=mine)).request(Renew(())) == Ack()


async def test_a_port_in_use_is_named(room: Room) -> None:
    keys = Security.generate()
    server = await room.server("tcp://127.0.0.1:0", security=keys)
    with pytest.raises(ConfigError, match=f"cannot listen on {server.address}: Address already in use"):
        await room.server(server.address, security=keys)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "inproc://x", "nonsense"])
def test_unguarded_endpoints_are_not_offered(address: str) -> None:
    with pytest.raises(ConfigError, match="endpoint"):
        Server(address, handler=Desk(), expected=EXPECTED, credits=1, heartbeat=1.0, clock=FakeClock())
    with pytest.raises(ConfigError, match="endpoint"):
        Client(address, hello(), clock=FakeClock())


def test_ipc_needs_a_private_folder_and_a_short_path(room: Room, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 100"):
        ipc_address(room.folder, "s" * 100)
    room.folder.chmod(0o755)
    with pytest.raises(ConfigError, match="mode 0700"):
        ipc_address(room.folder, "s")


async def test_across_processes(room: Room) -> None:
    server = await room.server()
    program = (
        "import asyncio, sys\n"
        "from common.clock import SystemClock\n"
        "from common.messages import Hello, Renew\n"
        "from common.transport import Client\n"
        "from common.wire import SCHEMA\n"
        "async def main():\n"
        "    client = Client(sys.argv[1], Hello(SCHEMA, 'r', 'actor', 0, 0, 'd'), clock=SystemClock())\n"
        "    await client.connect(30)\n"
        "    print(await client.request(Renew((1,))))\n"
        "    await client.close()\n"
        "    assert not {'torch', 'vllm', 'ray'} & sys.modules.keys()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, server.address, stdout=subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert (process.returncode, out) == (0, b"Ack()\n")
    assert room.desk.seen.get_nowait() == Renew((1,))
