"""The shard's end of the checker: texts in, verdicts on texts out.

A text that crashes or stalls the checker gets `checker_crash`; the texts that travelled with it are asked again
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.types import Status
from executor import frames
from executor.process import Died, Process
from executor.values import KEY_BYTES

MAX_SOURCE = 1 << 16  # bytes of a program or an input; the policy is stricter about programs


@dataclass(frozen=True, slots=True)
class Read:
    """`status` "ok": `key` identifies the content, `payload` is marshalled code or canonical text. Else
    `detail`.
    """

    status: str
    key: bytes = b""
    payload: bytes = b""
    detail: str = ""

    @property
    def ok(self) -> bool:
        return self.status == Status.OK


class Reader:
    def __init__(self, *, policy: bool, timeout: float, max_value: int) -> None:
        """`timeout` s per request; values of more than `max_value` bytes of text are not read at all."""
        script = Path(__file__).with_name("checker.py")
        self.process = Process("checker", script, ("policy" if policy else "",), hash_seed=0)
        self._timeout, self._max_value = timeout, max_value

    async def program(self, text: str) -> Read:
        (read,) = await self._read(frames.PROGRAM, [text.encode("utf-8", "surrogatepass")])
        return read

    async def expressions(self, texts: Sequence[str]) -> list[Read]:
        """Argument lists, compiled."""
        return await self._read(frames.EXPRESSION, [text.encode("utf-8", "surrogatepass") for text in texts])

    async def values(self, texts: Sequence[bytes]) -> list[Read]:
        """Literals."""
        return await self._read(frames.VALUE, texts)

    async def _read(self, kind: int, texts: Sequence[bytes]) -> list[Read]:
        limit = self._max_value if kind == frames.VALUE else MAX_SOURCE
        distinct = [text for text in dict.fromkeys(texts) if len(text) <= limit]
        found = dict(zip(distinct, await self._ask(kind, distinct), strict=True))
        too_big = Read(Status.TOO_BIG, detail=f"more than {limit} bytes of text")
        return [found.get(text, too_big) for text in texts]

    async def _ask(self, kind: int, texts: Sequence[bytes], *, again: bool = False) -> list[Read]:
        if not texts:
            return []
        try:
            body = await self.process.ask(frames.pack((kind, text) for text in texts), self._timeout)
            return _decode(body, len(texts))
        except (Died, frames.FrameError):
            if again:
                return [Read(Status.CHECKER_CRASH)]
            return [read for text in texts for read in await self._ask(kind, [text], again=True)]


def _decode(body: bytes, asked: int) -> list[Read]:
    """FrameError if this is not one item per text: the checker has met untrusted text and may be somebody else's."""
    items = frames.unpack(body)
    if len(items) != asked or any(code >= len(frames.STATUSES) for code, _ in items):
        raise frames.FrameError(f"{len(items)} items for {asked} texts")
    return [
        Read(Status.OK, key=data[:KEY_BYTES], payload=data[KEY_BYTES:])
        if code == frames.OK
        else Read(frames.STATUSES[code], detail=data.decode("utf-8", "replace"))
        for code, data in items
    ]
