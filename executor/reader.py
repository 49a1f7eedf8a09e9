"""The shard's view of the checker: texts go in, canonical forms and equality keys come out, hostile text included.

Questions are collected while the checker is busy and travel together; a text under way or remembered is not asked
again. When the checker dies of a batch, every text of it is asked once more alone, so only the culprit is told
`checker_crash`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.types import Status
from executor import frames
from executor.cache import Cache, collect
from executor.keys import KEY_BYTES
from executor.link import Died
from executor.policy import MAX_SOURCE
from executor.process import Process

_BATCH = 16  # texts of one question: some milliseconds
_UNDER_WAY = 2  # batches: the checker need not wait for us
_REMEMBERED = 8192  # bytes; what is longer, before or after reading, is read again rather than kept


@dataclass(frozen=True, slots=True)
class Read:
    """What the checker made of one text. `payload`: marshalled code, or the canonical text of a value."""

    status: str
    key: bytes = b""
    payload: bytes = b""
    detail: str = ""
    confined: bool = False  # executor/confined.py holds for this program or input

    @property
    def ok(self) -> bool:
        return self.status == Status.OK


class Reader:
    def __init__(self, *, policy: bool, timeout: float, max_value: int, entries: int) -> None:
        """`timeout` s per request; values of more than `max_value` bytes of text are not read at all; `entries` are
        remembered."""
        script = Path(__file__).with_name("checker.py")
        self.process = Process("checker", script, ("policy" if policy else "",), hash_seed=0)
        self._timeout, self._max_value = timeout, max_value
        self._known: Cache[frames.Item, Read] = Cache(entries)
        self._waiting: deque[frames.Item] = deque()
        self._batches: set[asyncio.Task[None]] = set()

    async def close(self) -> None:
        await self.process.close()
        while self._batches:
            await asyncio.gather(*self._batches, return_exceptions=True)

    async def program(self, text: str) -> Read:
        (read,) = await self._read(frames.PROGRAM, [text.encode("utf-8", "surrogatepass")])
        return read

    async def expressions(self, texts: Sequence[str]) -> list[Read]:
        """Argument lists, compiled."""
        return await self._read(frames.EXPRESSION, [text.encode("utf-8", "surrogatepass") for text in texts])

    async def composite(self, own: str, components: Sequence[str]) -> Read:
        """Whether the new part of a composite calls its components and binds none: ok, without a key, if it does."""
        question = f"{' '.join(components)}\n{own}"
        (read,) = await self._read(frames.COMPOSITE, [question.encode("utf-8", "surrogatepass")])
        return read

    async def values(self, texts: Sequence[bytes]) -> list[Read]:
        """Literals."""
        return await self._read(frames.VALUE, texts)

    async def _read(self, kind: int, texts: Sequence[bytes]) -> list[Read]:
        limit = self._max_value if kind == frames.VALUE else MAX_SOURCE
        distinct = [(kind, text) for text in dict.fromkeys(texts) if len(text) <= limit]
        answers, fresh = self._known.claim(distinct)
        self._waiting.extend(fresh)
        self._send()
        found = dict(zip(distinct, await collect(answers), strict=True))
        too_big = Read(Status.TOO_BIG, detail=f"more than {limit} bytes of text")
        return [found.get((kind, text), too_big) for text in texts]

    def _send(self) -> None:
        while self._waiting and len(self._batches) < _UNDER_WAY:
            batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
            task = asyncio.create_task(self._ask(batch))
            self._batches.add(task)
            task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._batches.discard(task)
        self._send()

    async def _ask(self, batch: list[frames.Item]) -> None:
        try:
            for item, read in zip(batch, await self._answers(batch), strict=True):
                short = max(len(item[1]), len(read.payload)) <= _REMEMBERED
                lasting = short and read.status != Status.CHECKER_CRASH
                self._known.settle(item, read, keep=lasting)
        except Exception as error:  # noqa: BLE001 - whoever waits must see it
            self._known.fail(error, batch)

    async def _answers(self, batch: list[frames.Item], *, again: bool = False) -> list[Read]:
        try:
            return _decode(await self.process.ask(frames.pack(batch), self._timeout), len(batch))
        except (Died, frames.FrameError):
            if again:
                return [Read(Status.CHECKER_CRASH)]
            return [read for item in batch for read in await self._answers([item], again=True)]


def _decode(body: bytes, asked: int) -> list[Read]:
    """FrameError if this is not one item per text: the checker has met untrusted text and may be somebody else's."""
    items = frames.unpack(body)
    if len(items) != asked or any(code > frames.COMPOSITION for code, _ in items):
        raise frames.FrameError(f"{len(items)} items for {asked} texts")
    return [
        Read(Status.OK, key=data[:KEY_BYTES], payload=data[KEY_BYTES:], confined=code == frames.CONFINED)
        if code in (frames.OK, frames.CONFINED)
        else Read(
            Status.COMPOSITION if code == frames.COMPOSITION else frames.STATUSES[code],
            detail=data.decode("utf-8", "replace"),
        )
        for code, data in items
    ]
