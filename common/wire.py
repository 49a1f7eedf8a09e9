"""Messages as frames of bytes, and back.

    frame 0    header: magic, schema, request id, CRC32 of all that follows and of these fields themselves
    frame 1    msgpack: [index into MESSAGES, fields]
    frame 2…   one array each, raw little-endian

`SCHEMA` is computed from the message classes: any change of a field, type or order gives another number, so
there is no version to forget. Only the handshake is read across schemas; its answer can then say what
differs.

Invariants: whatever bytes come in, `decode` and `unpack_record` return a message of exactly the declared
types or raise WireError, and allocate at most in proportion to `Limits`. Nothing is ever evaluated or
unpickled.

Not guaranteed: authenticity. The CRC finds accidents; who may speak is the transport's business.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack

from common.codec import codec
from common.errors import WireError
from common.messages import MESSAGES, Hello, RefusedHello

MAGIC = b"azr\x01"
_HEAD = struct.Struct("<4sIQ")  # magic, schema, request id
_CRC = struct.Struct("<I")
_COUNT = struct.Struct("<I")
_CODECS = tuple(codec(kind) for kind in MESSAGES)
_NUMBERS = {kind: number for number, kind in enumerate(MESSAGES)}
_HANDSHAKE = frozenset(_NUMBERS[kind] for kind in (Hello, RefusedHello))

NO_REQUEST = 0  # id of what is neither a request nor a reply: notices, records
SCHEMA: int = zlib.crc32("\n".join(c.shape for c in _CODECS).encode())


@dataclass(frozen=True, slots=True)
class Limits:
    """What a receiver is ready to take, and a sender to send."""

    frames: int = 1 << 14
    frame_bytes: int = 1 << 26
    total_bytes: int = 1 << 28
    items: int = 1 << 16  # elements of one list or map of the header


LIMITS = Limits()


def encode(request_id: int, message: object, limits: Limits = LIMITS) -> list[bytes]:
    """Frames of `message`. WireError if it is not in MESSAGES, has a field of a wrong type or is too big."""
    number = _NUMBERS.get(type(message))
    if number is None:
        raise WireError(f"{type(message).__name__} is not a message")
    if not 0 <= request_id < 1 << 64:
        raise WireError(f"request id {request_id} does not fit 64 bits")
    arrays: list[bytes] = []
    try:
        fields = _CODECS[number].pack(message, arrays)
        body: bytes = msgpack.packb([number, fields], unicode_errors="surrogatepass")
    except (ValueError, OverflowError) as error:
        raise WireError(f"{type(message).__name__}: {error}") from error
    frames = [body, *arrays]
    _check_sizes(frames, limits)
    head = _HEAD.pack(MAGIC, SCHEMA, request_id)
    return [head + _CRC.pack(_checksum(head, frames)), *frames]


def decode(frames: Sequence[bytes], limits: Limits = LIMITS) -> tuple[int, Any]:
    """(request id, message); arrays are read-only. Raises WireError, and nothing else, if malformed."""
    if len(frames) < 2:
        raise WireError(f"{len(frames)} frames; a message has at least 2")
    header, *rest = frames
    if len(header) != _HEAD.size + _CRC.size:
        raise WireError(f"header of {len(header)} bytes")
    magic, schema, request_id = _HEAD.unpack_from(header)
    if magic != MAGIC:
        raise WireError(f"magic {magic!r}")
    _check_sizes(rest, limits)
    if _CRC.unpack_from(header, _HEAD.size)[0] != _checksum(header[: _HEAD.size], rest):
        raise WireError("CRC does not match")
    number, fields = _parse(rest[0], limits)
    if schema != SCHEMA and number not in _HANDSHAKE:
        raise WireError(f"schema {schema:08x}, ours is {SCHEMA:08x}")
    arrays = iter(enumerate(rest[1:]))
    message = _CODECS[number].unpack(fields, arrays)
    if next(arrays, None) is not None:
        raise WireError(f"{MESSAGES[number].__name__}: an array that no field refers to")
    return request_id, message


def pack_record(message: object, limits: Limits = LIMITS) -> bytes:
    """One blob of the same frames, for files: header, count and lengths of the other frames, the frames."""
    header, *frames = encode(NO_REQUEST, message, limits)
    lengths = struct.pack(f"<{len(frames)}I", *map(len, frames))
    return b"".join([header, _COUNT.pack(len(frames)), lengths, *frames])


def unpack_record(blob: bytes, limits: Limits = LIMITS) -> Any:
    """The message of a blob of `pack_record`. WireError if it is cut, altered or of another schema."""
    table = _HEAD.size + _CRC.size + _COUNT.size
    if len(blob) < table:
        raise WireError(f"record of {len(blob)} bytes")
    (count,) = _COUNT.unpack_from(blob, table - _COUNT.size)
    if count > limits.frames or len(blob) < table + 4 * count:
        raise WireError(f"record of {len(blob)} bytes names {count} frames")
    at = table + 4 * count
    frames = [blob[: table - _COUNT.size]]
    for length in struct.unpack_from(f"<{count}I", blob, table):
        frames.append(blob[at : at + length])
        at += length
    if at != len(blob):
        raise WireError(f"record of {len(blob)} bytes should have {at}")
    return decode(frames, limits)[1]


def _checksum(head: bytes, frames: Sequence[bytes]) -> int:
    # The lengths take part, so that bytes which slip from one frame into the next are found.
    crc = zlib.crc32(struct.pack(f"<{len(frames)}Q", *map(len, frames)), zlib.crc32(head))
    for frame in frames:
        crc = zlib.crc32(frame, crc)
    return crc


def _check_sizes(frames: Sequence[bytes], limits: Limits) -> None:
    if len(frames) >= limits.frames:
        raise WireError(f"{len(frames)} frames; the limit is {limits.frames}")
    longest, total = max(map(len, frames)), sum(map(len, frames))
    if longest > limits.frame_bytes:
        raise WireError(f"frame of {longest} bytes; the limit is {limits.frame_bytes}")
    if total > limits.total_bytes:
        raise WireError(f"message of {total} bytes; the limit is {limits.total_bytes}")


def _parse(body: bytes, limits: Limits) -> tuple[int, Any]:
    try:
        value = msgpack.unpackb(
            body,
            unicode_errors="surrogatepass",
            max_array_len=limits.items,
            max_map_len=limits.items,
            max_bin_len=0,
            max_ext_len=0,
        )
    except (ValueError, msgpack.UnpackException) as error:
        raise WireError(f"not msgpack: {type(error).__name__} {error}") from error
    if type(value) is not list or len(value) != 2 or type(value[0]) is not int:
        raise WireError("expected [message number, fields]")
    if not 0 <= value[0] < len(MESSAGES):
        raise WireError(f"no message has number {value[0]}")
    return value[0], value[1]
