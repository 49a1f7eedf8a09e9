"""How the shard and its sandboxed processes talk: length-prefixed byte strings, nothing richer.

A *message* is u32 length + body, over a socket. An *item* is u8 code + u32 length + bytes; a body or the output of an
execution is a sequence of items. All integers are little-endian. Nothing here decodes what the bytes mean.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

ITEM = struct.Struct("<BI")
LENGTH = struct.Struct("<I")
HELLO = struct.Struct("<BB")  # first reply of a sandboxed process: Landlock ABI (0: none), whether its loop is in C
UNAVAILABLE = b"\xff"  # or that, and why there can be no sandbox
# To a zygote, before the items: CPU ms, wall ms, bytes of all outputs, bytes of one output, probe of the self-test
REQUEST = struct.Struct("<IIIIB")
NO_PROBE = 255
REPORT = struct.Struct("<iBI")  # from a zygote, before the child's bytes: wait status, ended, CPU µs
NO_CHILD = 12  # SIGUSR2 as wait status: there was no child, or it could not be locked down, so nothing was run
ENDED_ITSELF, ENDED_BY_CLOCK, ENDED_BY_FLOOD = range(3)  # why the zygote stopped listening to a child

# Codes of items that answer; texts equal common.types.Status, which processes without numpy cannot import.
STATUSES = (
    "ok", "syntax", "policy", "input", "error", "exit", "memory", "too_big", "unserialisable",
)  # fmt: skip
OK, SYNTAX, POLICY, INPUT, ERROR, EXIT, MEMORY, TOO_BIG, UNSERIALISABLE = range(len(STATUSES))
# Of the checker alone: ok, and executor/confined.py holds; a composite that executor/composition.py refuses
CONFINED, COMPOSITION = len(STATUSES), len(STATUSES) + 1

PROGRAM, EXPRESSION, VALUE, COMPOSITE = range(4)  # codes of items that ask the checker

Item = tuple[int, bytes]


class FrameError(ValueError):
    """Bytes that are not a sequence of whole items."""


def pack(items: Iterable[Item]) -> bytes:
    return b"".join([ITEM.pack(code, len(data)) + data for code, data in items])


def unpack(body: bytes) -> list[Item]:
    """The items of `body`. FrameError if it ends within one."""
    items, rest = unpack_whole(body)
    if rest:
        raise FrameError(f"{rest} bytes after the last whole item")
    return items


def unpack_whole(body: bytes) -> tuple[list[Item], int]:
    """The whole items at the front of `body`, and how many bytes remain behind them."""
    items: list[Item] = []
    place = 0
    while place + ITEM.size <= len(body):
        code, length = ITEM.unpack_from(body, place)
        end = place + ITEM.size + length
        if end > len(body):
            break
        items.append((code, body[place + ITEM.size : end]))
        place = end
    return items, len(body) - place


def receive(descriptor: int) -> bytes:
    """The body of the next message, blocking. EOFError when the other side has closed."""
    (length,) = LENGTH.unpack(_read(descriptor, LENGTH.size))
    return _read(descriptor, length)


def send(descriptor: int, body: bytes) -> None:
    write(descriptor, LENGTH.pack(len(body)) + body)


def write(descriptor: int, data: bytes) -> None:
    """All of `data`, blocking."""
    while data:
        data = data[os.write(descriptor, data) :]


def _read(descriptor: int, count: int) -> bytes:
    parts: list[bytes] = []
    while count:
        part = os.read(descriptor, count)
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
