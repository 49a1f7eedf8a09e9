import asyncio
import logging
from collections.abc import Callable

import pytest
import zmq
import zmq.asyncio

from common.errors import PartFailed, WireError
from common.messages import (
    Ack,
    Failed,
    Leases,
    Novelty,
    Ping,
    Pong,
    Renew,
    Stop,
    WantLeases,
    Welcome,
)
from common.transport import Expected, Peer, ipc_address
from common.wire import NO_REQUEST, Limits, decode, encode
from tests.fakes.room import ACTOR, BEAT, EXPECTED, RESEND, Desk, Room, about, ask, hello

# -- repetition ------------------------------------------------------------------------------------------


async def test_a_repeated_id_is_handled_once(room: Room) -> None:
    server = await room.server()
    socket = room.raw(server.address)
    await ask(socket, 1, hello())
    for _ in range(3):
        await socket.send_multipart(encode(2, about("slow")))
    assert await ask(socket, 3, Renew(())) == (3, Ack())
    room.desk.release.set()
    assert decode(await socket.recv_multipart()) == (2, Novelty("ok"))
    assert await ask(socket, 2, about("slow")) == (2, Novelty("ok"))
    assert await ask(socket, 3, Renew(())) == (3, Ack())
    assert room.desk.handled == 2


async def test_kept_replies_are_bounded(room: Room) -> None:
    server = await room.server()
    socket = room.raw(server.address)
    await ask(socket, 1, hello())
    for request_id in range(2, 300):
        await ask(socket, request_id, Renew(()))
    await ask(socket, 299, Renew(()))
    assert room.desk.handled == 298
    await ask(socket, 2, Renew(()))
    assert room.desk.handled == 299


async def test_requests_under_way_are_bounded(room: Room) -> None:
    server = await room.server(credits=1)
    socket = room.raw(server.address)
    await ask(socket, 1, hello())
    for request_id in range(2, 40):
        await socket.send_multipart(encode(request_id, about("slow")))
    await ask(socket, NO_REQUEST, Ping())
    assert room.desk.handled == 18
    room.desk.release.set()
    answered = [decode(await socket.recv_multipart())[0] for _ in range(18)]
    assert answered == list(range(2, 20))
    assert await ask(socket, 39, about("slow")) == (39, Novelty("ok"))


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


# -- silence ---------------------------------------------------------------------------------------------


async def test_a_silent_peer_leaves_and_its_requests_are_cancelled(room: Room) -> None:
    server = await room.server()
    socket = room.raw(server.address)
    await ask(socket, 1, hello())
    await room.desk.events.get()
    await socket.send_multipart(encode(2, WantLeases(1)))
    await room.desk.seen.get()
    await room.clock.advance(3 * BEAT)
    assert ACTOR in server.peers
    await room.clock.advance(BEAT)
    assert room.desk.events.get_nowait() == ("left", ACTOR, "silent for 3 heartbeats")
    await room.desk.cancelled.wait()
    assert ACTOR not in server.peers
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
    slow = [asyncio.create_task(client.request(about("slow"))) for _ in range(3)]
    await room.desk.seen.get()
    await server.close()
    await room.clock.advance(5 * BEAT)
    for asking in slow:
        with pytest.raises(PartFailed, match="silent for 20 s"):
            await asking
    assert client.lost.is_set()
    with pytest.raises(PartFailed, match="silent for 20 s"):
        await client.request(Renew(()))


# -- bad input -------------------------------------------------------------------------------------------


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
