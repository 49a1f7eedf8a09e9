"""What the processes of a run need to find and trust each other: endpoints, keys, HELLOs.

On one machine sockets are ipc:// in a private folder; otherwise TCP with CURVE, where every process keeps its secret
key and returns the public one through Ray.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.clock import SystemClock
from common.config import Config
from common.messages import Hello
from common.tally import Tally
from common.transport import Client, Expected, Handler, Security, Server, ipc_address
from common.wire import SCHEMA

HEARTBEAT = 3.0  # seconds
CREDITS = 256  # requests an actor or trainer may have unanswered at the intake


@dataclass(frozen=True)
class Endpoint:
    """Where a server listens; `public_key` is empty for ipc."""

    address: str
    public_key: bytes = b""


@dataclass(frozen=True)
class Network:
    """How this run's sockets are made. `folder`: private folder of the ipc sockets, None for TCP."""

    run: str
    config: Config
    folder: Path | None

    def security(self) -> Security | None:
        return None if self.folder is not None else Security.generate()

    def bind_address(self, name: str) -> str:
        """Where server `name` binds, asked in its own process; a TCP port is picked by the system."""
        if self.folder is not None:
            return ipc_address(self.folder, name)
        return f"tcp://{own_address()}:0"

    def server(
        self,
        bind: str,
        handler: Handler,
        roles: set[str],
        credits: int,
        security: Security | None,
        tally: Tally | None = None,
    ) -> Server:
        run = self.config.run
        expected = Expected(self.run, self.config.digest, run.incarnation, frozenset(roles))
        return Server(
            bind,
            handler=handler,
            expected=expected,
            credits=credits,
            heartbeat=HEARTBEAT,
            clock=SystemClock(),
            security=security,
            tally=tally,
        )

    def client(
        self,
        endpoint: Endpoint,
        role: str,
        index: int,
        security: Security | None,
        server: str,
        on_notice: Callable[[Any], None] = lambda notice: None,
    ) -> Client:
        hello = Hello(SCHEMA, self.run, role, index, self.config.run.incarnation, self.config.digest)
        if security is not None:
            security = Security(security.public, security.secret, endpoint.public_key)
        return Client(
            endpoint.address, hello, clock=SystemClock(), security=security, server=server, on_notice=on_notice
        )


def own_address() -> str:
    """The address of this machine that others reach; loopback if it has no other. A UDP connect sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])
