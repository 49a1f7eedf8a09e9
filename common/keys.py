"""Who may talk to whom: CURVE key pairs, the allow-list of a server, and private folders for ipc sockets.

Two kinds of endpoint exist. `ipc://` inside a folder that only this user can enter needs no keys. `tcp://`
needs CURVE: every process makes its own pair, keeps the secret half, and a server lets in only the public
keys it was told.

Not guaranteed: protection from processes of the same user, or from root.
"""

from __future__ import annotations

import asyncio
import os
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import zmq
import zmq.asyncio
from zmq.utils import z85

from common.errors import ConfigError

MAX_IPC_PATH = 100  # bytes; the kernel's limit is 107, and pyzmq cuts longer paths in silence on some systems
_ZAP = "inproc://zeromq.zap.01"
_DOMAIN = b"azr"
_HANDSHAKE_MS = 5000  # after which a client that was not let in tries again


@dataclass(frozen=True, slots=True)
class Security:
    """CURVE keys of one process, as Z85 text of 40 bytes.

    A client sets `server`, the public key it expects. A server keeps `allowed`, which may grow while it runs.
    """

    public: bytes
    secret: bytes = field(repr=False)
    server: bytes = b""
    allowed: set[bytes] = field(default_factory=set)

    @classmethod
    def generate(cls, server: bytes = b"") -> Security:
        public, secret = zmq.curve_keypair()
        return cls(public, secret, server)

    def add(self, public_key: bytes) -> None:
        """Let the process with this public key in."""
        self.allowed.add(public_key)

    def secure_server(self, socket: zmq.asyncio.Socket) -> None:
        """To be called before bind."""
        socket.curve_server = True
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret
        socket.zap_domain = _DOMAIN
        socket.handshake_ivl = _HANDSHAKE_MS

    def secure_client(self, socket: zmq.asyncio.Socket) -> None:
        """To be called before connect."""
        if not self.server:
            raise ConfigError("a tcp client needs the public key of its server")
        socket.handshake_ivl = _HANDSHAKE_MS
        socket.curve_serverkey = self.server
        socket.curve_publickey, socket.curve_secretkey = self.public, self.secret


class Gatekeeper:
    """Answers libzmq's question whether a key may enter (ZAP, RFC 27), for all sockets of one context."""

    def __init__(self, context: zmq.asyncio.Context, security: Security) -> None:
        self._security = security
        self._socket = context.socket(zmq.REP)
        self._socket.bind(_ZAP)
        self.refused = 0
        self.refusal = asyncio.Event()  # set once somebody was refused

    async def serve(self) -> None:
        while True:
            (
                version,
                request,
                _domain,
                _address,
                _identity,
                mechanism,
                *credentials,
            ) = await self._socket.recv_multipart()
            known = len(credentials) == 1 and z85.encode(credentials[0]) in self._security.allowed
            if mechanism == b"CURVE" and known:
                code, text = b"200", b"OK"
            else:
                # "Temporary": after 400 libzmq's client would never try again, and a key may be on its way here.
                code, text = b"300", b"key not on the allow-list"
                self.refused += 1
                self.refusal.set()
            await self._socket.send_multipart([version, request, code, text, b"", b""])

    def close(self) -> None:
        self._socket.close(linger=0)


def private_folder() -> Path:
    """A new folder with a short path that only this user can enter."""
    return Path(tempfile.mkdtemp(prefix="azr-", dir="/tmp"))


def ipc_address(folder: Path, name: str) -> str:
    """ipc endpoint `name` in `folder`. ConfigError if others may enter the folder or the path is too long."""
    info = os.stat(folder)
    if not stat.S_ISDIR(info.st_mode) or stat.S_IMODE(info.st_mode) != 0o700 or info.st_uid != os.getuid():
        raise ConfigError(f"{folder} must be a folder of mode 0700 that belongs to this user")
    path = os.fsencode(folder / name)
    if len(path) > MAX_IPC_PATH:
        raise ConfigError(f"socket path of {len(path)} bytes, at most {MAX_IPC_PATH}: {os.fsdecode(path)}")
    return f"ipc://{os.fsdecode(path)}"


def check_endpoint(address: str, security: Security | None) -> None:
    """ConfigError unless `address` is ipc, or tcp with keys."""
    if address.startswith("ipc://"):
        return
    if not address.startswith("tcp://"):
        raise ConfigError(f"endpoint {address}: only ipc:// and tcp:// are served")
    if security is None:
        raise ConfigError(f"endpoint {address}: tcp is offered only with CURVE keys")
