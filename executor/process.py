"""The shard's end of one sandboxed process: started, asked one thing at a time, replaced when it dies.

Callers queue in the order they came. A process that closes its socket, answers nonsense or stays silent beyond the
time-out is killed, and the next caller gets a fresh one; whoever was being served gets `Died`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from pathlib import Path

from common.errors import PartFailed, SandboxUnavailable
from executor import frames

UNAVAILABLE = 255  # first byte of a first reply that says why there is no sandbox
_ROOT = Path(__file__).resolve().parent.parent
_START_TIMEOUT = 60.0
_MAX_MESSAGE = 1 << 28

logger = logging.getLogger(__name__)


class Died(Exception):
    """The process ended, or had to be ended, while it served this request."""


class Process:
    def __init__(self, name: str, script: Path, arguments: tuple[str, ...], *, hash_seed: int) -> None:
        """`script` speaks messages (executor/frames.py) on fd 0; it sees the repository's packages and the
        standard library, no site-packages, and an environment made here."""
        self.name = name
        self._command = (os.path.realpath(sys.executable), "-s", "-S", "-P", "-B", str(script), *arguments)
        self._environment = {
            "PYTHONPATH": str(_ROOT),
            "PYTHONHASHSEED": str(hash_seed),
            "LC_ALL": "C.UTF-8",
            "MALLOC_ARENA_MAX": "1",
            "MALLOC_TOP_PAD_": str(1 << 20),  # fewer brk calls in a child
        }
        self._turn = asyncio.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._closed = False
        self.starts = 0

    @property
    def pid(self) -> int | None:
        """None while there is no process."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Idempotent. SandboxUnavailable if the process says so or does not come up."""
        async with self._turn:
            await self._ready()

    async def ask(self, body: bytes, timeout: float) -> bytes:
        """The reply to one request. Died as above; SandboxUnavailable if a new process cannot be started."""
        async with self._turn:
            await self._ready()
            try:
                return await self._exchange(body, timeout)
            except (OSError, EOFError, TimeoutError, frames.FrameError) as error:
                await self._end()
                logger.warning("%s died: %s", self.name, error or type(error).__name__)
                raise Died(self.name) from error
            except asyncio.CancelledError:
                await self._end()  # its reply would be taken for that of the next request
                raise

    async def close(self) -> None:
        """Kill what is running, for good: a request under way gets Died, a later one PartFailed."""
        self._closed = True
        if self._child is not None:
            self._child.kill()
        async with self._turn:
            await self._end()

    async def _ready(self) -> None:
        if self._closed:
            raise PartFailed(self.name, "closed")
        if self._streams is not None:
            return
        ours, theirs = socket.socketpair()
        with theirs:
            # From this very thread, which must outlive the child: the kernel kills it when its parent thread ends.
            self._child = subprocess.Popen(  # noqa: ASYNC220 - a fork and exec, some milliseconds
                self._command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, env=self._environment, cwd="/"
            )
        self._streams = await asyncio.open_unix_connection(sock=ours)
        try:
            hello = await self._exchange(None, _START_TIMEOUT)
        except (OSError, EOFError, TimeoutError, frames.FrameError) as error:
            await self._end()
            raise SandboxUnavailable(f"{self.name} did not come up ({error or type(error).__name__})") from error
        except asyncio.CancelledError:
            await self._end()
            raise
        if not hello or hello[0] == UNAVAILABLE:
            await self._end()
            raise SandboxUnavailable(f"{self.name}: {hello[1:].decode('utf-8', 'replace')}")
        if hello[0] == 0 and self.starts == 0:
            logger.warning("%s: no Landlock in this kernel; seccomp alone keeps files and network away", self.name)
        self.starts += 1

    async def _exchange(self, body: bytes | None, timeout: float) -> bytes:
        assert self._streams is not None
        reader, writer = self._streams
        async with asyncio.timeout(timeout):
            if body is not None:
                writer.write(frames.LENGTH.pack(len(body)) + body)
                await writer.drain()
            (length,) = frames.LENGTH.unpack(await reader.readexactly(frames.LENGTH.size))
            if length > _MAX_MESSAGE:
                raise frames.FrameError(f"a message of {length} bytes")
            return await reader.readexactly(length)

    async def _end(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child.wait()  # it has been killed: no time to speak of
            self._child = None
        if self._streams is not None:
            _, writer = self._streams
            self._streams = None
            writer.transport.abort()
            try:
                await writer.wait_closed()
            except OSError:
                pass  # the reason is known: we closed it
