"""Endpoints, keys and HELLOs fit together, over real sockets."""

from __future__ import annotations

import dataclasses
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from azr.wiring import Endpoint, Network, free_port, own_address
from common.config import Config, RunConfig
from common.errors import ConfigError, Refused
from common.keys import private_folder
from common.messages import Ack, Hello, Renew, WantShare
from common.transport import Client, Peer, Security, Server

ACTOR, TRAINER = Peer("actor", 0), Peer("trainer", 0)


class Desk:
    def __init__(self) -> None:
        self.peers: list[Peer] = []

    async def handle(self, peer: Peer, message: object) -> object:
        return Ack()

    def joined(self, peer: Peer, hello: Hello) -> None:
        self.peers.append(peer)

    def left(self, peer: Peer, reason: str) -> None:
        pass


@pytest.fixture
def private() -> Iterator[Path]:
    folder = private_folder()
    yield folder
    shutil.rmtree(folder)


@asynccontextmanager
async def serving(network: Network, bind: str, security: Security | None) -> AsyncIterator[Server]:
    server = network.server(bind, Desk(), {"actor"}, credits=4, security=security)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def connected(
    network: Network, endpoint: Endpoint, role: str, security: Security | None = None
) -> AsyncIterator[Client]:
    client = network.client(endpoint, role, 0, security, "intake")
    try:
        await client.connect(10.0)
        yield client
    finally:
        await client.close()


async def test_on_one_machine_sockets_lie_in_the_private_folder_and_need_no_keys(private: Path) -> None:
    network = Network("run", Config(), private)
    assert network.security() is None
    bind = network.bind_address("intake")
    assert bind == f"ipc://{private}/intake"
    async with (
        serving(network, bind, None) as server,
        connected(network, Endpoint(server.address), "actor") as client,
    ):
        assert await client.request(Renew(())) == Ack()
        assert server.peers == (ACTOR,)


def test_a_folder_that_others_may_enter_is_refused(private: Path) -> None:
    private.chmod(0o755)
    with pytest.raises(ConfigError, match="mode 0700"):
        Network("run", Config(), private).bind_address("intake")


async def test_between_machines_each_process_has_keys_and_the_server_a_list() -> None:
    network = Network("run", Config(), None)
    server_keys, client_keys = network.security(), network.security()
    assert server_keys is not None and client_keys is not None
    server_keys.add(client_keys.public)
    bind = f"tcp://127.0.0.1:{free_port()}"
    async with serving(network, bind, server_keys) as server:
        endpoint = Endpoint(server.address, server_keys.public)
        async with connected(network, endpoint, "actor", client_keys) as client:
            assert await client.request(Renew(())) == Ack()
    assert client_keys.server == b""


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (Network("another", Config(), None), "run is 'another', here 'run'"),
        (Network("run", Config(run=RunConfig(seed=1)), None), "config_digest is"),
        (Network("run", Config(run=RunConfig(incarnation=1)), None), "incarnation is 1, here 0"),
    ],
)
async def test_who_is_of_another_run_is_refused_with_the_reason(private: Path, other: Network, named: str) -> None:
    network = Network("run", Config(), private)
    async with serving(network, network.bind_address("intake"), None) as server:
        theirs = dataclasses.replace(other, folder=private)
        with pytest.raises(Refused, match=named):
            async with connected(theirs, Endpoint(server.address), "actor"):
                pass


async def test_a_role_the_server_does_not_serve_is_refused(private: Path) -> None:
    network = Network("run", Config(), private)
    async with serving(network, network.bind_address("executor"), None) as server:
        with pytest.raises(Refused, match="role 'trainer' is not one of actor"):
            async with connected(network, Endpoint(server.address), "trainer") as client:
                await client.request(WantShare(0, 0))


def test_tcp_addresses_name_this_machine_and_a_port_that_can_be_bound() -> None:
    address = Network("run", Config(), None).bind_address("intake")
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    assert host == own_address()
    with socket.socket() as bound:
        bound.bind((host, int(port)))
