"""The shard's end of one sandboxed process: started, asked many things, replaced when it dies.

A process that closes its socket, answers nonsense or stays silent beyond the time-out is killed, and the next request
starts a fresh one; whoever was being served gets `Died`, whoever waited behind is asked again unawares.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from common.errors import PartFailed, SandboxUnavailable
from executor import frames
from executor.link import Died, Link, Unserved

_ROOT = Path(__file__).resolve().parent.parent
_START_TIMEOUT = 60.0  # seconds

Ask = Callable[[bytes, float], Awaitable[bytes]]
Prove = Callable[[Ask], Awaitable[None]]

logger = logging.getLogger(__name__)


async def _nothing_to_prove(ask: Ask) -> None:
    pass


class Process:
    def __init__(
        self, name: str, script: Path, arguments: tuple[str, ...], *, hash_seed: int, prove: Prove = _nothing_to_prove
    ) -> None:
        """`script` speaks messages (executor/frames.py) on fd 0; it sees the repository's packages and the
        standard library, no site-packages, and an environment made here. Each start of it is put to `prove`, which
        raises SandboxUnavailable."""
        self.name = name
        self._command = (os.path.realpath(sys.executable), "-s", "-S", "-P", "-B", str(script), *arguments)
        self._environment = {
            "PYTHONPATH": str(_ROOT),
            "PYTHONHASHSEED": str(hash_seed),
            "LC_ALL": "C.UTF-8",
            "LD_BIND_NOW": "1",  # else each child looks the functions up anew
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_TOP_PAD_": str(1 << 20),  # fewer brk calls in a child
        }
        self._prove = prove
        self.asking: Callable[[], AbstractContextManager[None]] = nullcontext  # entered for each request
        self._starting = asyncio.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._link: Link | None = None
        self._closed = False
        self.starts = 0
        self.landlock = 0  # ABI in force, 0: none
        self.native = False  # whether its loop is the one in C

    @property
    def pid(self) -> int | None:
        """None while there is no process."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Idempotent. SandboxUnavailable if the process says so, does not come up or does not stand the proof."""
        await self._ready()

    async def ask(self, body: bytes, timeout: float) -> bytes:
        """The reply to one request; `timeout` in seconds, from when it is its turn.

        Died as above; SandboxUnavailable if a new process cannot be started; PartFailed after `close`.
        """
        with self.asking():
            while True:
                link = await self._ready()
                try:
                    return await link.ask(body, timeout)
                except Unserved:
                    continue

    async def close(self) -> None:
        """Kill what is running, for good."""
        self._closed = True
        self._kill()
        async with self._starting:
            self._kill()

    async def _ready(self) -> Link:
        if self._link is not None and not self._starting.locked():
            return self._link
        async with self._starting:
            if self._closed:
                raise PartFailed(self.name, "closed")
            if self._link is None:
                try:
                    await self._start()
                except BaseException:
                    self._kill()
                    raise
            if self._link is None:
                raise SandboxUnavailable(f"{self.name} died as soon as it had started")
            return self._link

    async def _start(self) -> None:
        ours = self._spawn()
        loop = asyncio.get_running_loop()
        link = Link(lambda reason: self._ended(link, reason))
        self._link = link
        hello = link.expect(_START_TIMEOUT)
        await loop.create_unix_connection(lambda: link, sock=ours)
        try:
            said = await hello
            if said.startswith(frames.UNAVAILABLE) or len(said) != frames.HELLO.size:
                raise SandboxUnavailable(f"{self.name}: {said[1:].decode('utf-8', 'replace')}")
            self.landlock, self.native = frames.HELLO.unpack(said)
            await self._prove(link.ask)
        except (Died, Unserved) as error:
            if self._closed:
                raise PartFailed(self.name, "closed") from error
            raise SandboxUnavailable(f"{self.name} did not come up ({error})") from error
        self.starts += 1
        if not self.landlock and self.starts == 1:
            logger.warning("%s: no Landlock in this kernel; seccomp alone keeps files and network away", self.name)

    def _spawn(self) -> socket.socket:
        """Start the process; our end of its socket."""
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise SandboxUnavailable(f"{self.name} cannot be started: {error}") from error
        with theirs:
            try:
                # From this very thread, which must outlive the child: the kernel kills it when its parent thread ends.
                self._child = subprocess.Popen(
                    self._command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=self._environment, cwd="/"
                )
            except OSError as error:
                ours.close()
                raise SandboxUnavailable(f"{self.name} cannot be started: {error}") from error
        return ours

    def _ended(self, link: Link, reason: str) -> None:
        """`link` is closed: end its process, too."""
        if link is self._link:
            if not self._closed:
                logger.warning("%s died: %s", self.name, reason)
            self._kill()

    def _kill(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.end("closed")
        if self._child is not None:
            self._child.kill()
            self._child.wait()  # it has been killed: no time to speak of
            self._child = None
