import asyncio
from typing import Any

import pytest

from common.errors import PartFailed, Refused, WireError
from common.messages import (
    Ack,
    Cancel,
    Leases,
    Novelty,
    RefusedHello,
    Renew,
    Stop,
    WantLeases,
    Welcome,
)
from common.transport import Peer, ipc_address
from tests.fakes.room import ACTOR, BEAT, RESEND, Room, about, ask, hello

# -- handshake -------------------------------------------------------------------------------------------


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


# -- requests --------------------------------------------------------------------------------------------


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
    slow = [asyncio.create_task(client.request(about("slow"))) for _ in range(3)]
    poll = asyncio.create_task(client.request(WantLeases(1)))
    assert [await room.desk.seen.get() for _ in range(3)] == [about("slow"), about("slow"), WantLeases(1)]
    assert room.desk.handled == 3
    room.desk.release.set()
    assert await asyncio.gather(*slow) == [Novelty("ok")] * 3
    assert await poll == Leases(())
    assert room.desk.handled == 4


async def test_a_failed_request_is_a_wire_error(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    with pytest.raises(WireError, match="no such key"):
        await client.request(about("bad"))
    with pytest.raises(WireError, match="object is not a message"):
        await client.request(about("wrong"))
    assert await client.request(Renew(())) == Ack()


async def test_a_bug_in_the_handler_ends_the_server_loudly(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    asking = asyncio.create_task(client.request(about("bug")))
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
    asking = asyncio.create_task(client.request(about("slow"), timeout=7))
    await room.desk.seen.get()
    await room.clock.advance(8)
    with pytest.raises(PartFailed, match=r"no answer to AskNovelty from .* within 7 s"):
        await asking
    assert await client.request(Renew(())) == Ack()


async def test_a_cancelled_request_gives_its_credit_back(room: Room) -> None:
    server = await room.server()
    client = await room.connected(server.address)
    for _ in range(5):
        asking = asyncio.create_task(client.request(about("slow")))
        await room.desk.seen.get()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert await client.request(Renew(())) == Ack()


# -- notices ---------------------------------------------------------------------------------------------


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
