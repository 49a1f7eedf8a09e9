import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
import zmq.asyncio

from common.errors import ConfigError, PartFailed
from common.messages import (
    Ack,
    Renew,
)
from common.transport import Client, Security, Server, ipc_address
from common.wire import encode
from tests.fakes.clock import FakeClock
from tests.fakes.room import EXPECTED, Desk, Room, hello


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
    context = zmq.asyncio.Context()
    plain = context.socket(zmq.DEALER)
    try:
        monitor = plain.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
        plain.connect(server.address)
        await plain.send_multipart(encode(1, hello()))
        await monitor.recv_multipart()
        plain.disable_monitor()
    finally:
        context.destroy(linger=0)
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
