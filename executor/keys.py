"""When two values are the same: digests that are equal exactly when the values are.

Equal in the sense of Python's `==` (1 == True == 1.0, -0.0 == 0.0, order of a dict ignored, set == frozenset, list !=
tuple), with one difference: NaN equals NaN. Computed by the checker alone, never where untrusted code runs.

Invariant: key(parse(canonical(v))) == key(v), for the functions of executor/values.py.
"""

from __future__ import annotations

import hashlib
import math

from executor.values import MAX_DEPTH, NotAValue

KEY_BYTES = 16


def key(value: object) -> bytes:
    """KEY_BYTES bytes; equal exactly when the values are, up to collisions of BLAKE2b. NotAValue as `canonical`."""
    return digest(_encode(value, 0))


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=KEY_BYTES).digest()


def _encode(value: object, depth: int) -> bytes:
    """A prefix-free encoding in which equal values are equal bytes: numbers exactly, unordered elements sorted."""
    if depth > MAX_DEPTH + 1:
        raise NotAValue(f"nested more than {MAX_DEPTH} deep")
    depth += 1
    if value is None:
        return b"N"
    if isinstance(value, (int, float, complex)):
        return _encode_number(value)
    if isinstance(value, str):
        return _sized(b"s", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, bytes):
        return _sized(b"b", value)
    if isinstance(value, dict):
        return _counted(b"d", sorted([_encode(k, depth) + _encode(v, depth) for k, v in value.items()]))
    if isinstance(value, (set, frozenset)):
        return _counted(b"e", sorted([_encode(v, depth) for v in value]))
    if isinstance(value, (list, tuple)):
        return _counted(b"l" if isinstance(value, list) else b"t", [_encode(v, depth) for v in value])
    raise NotAValue(type(value).__name__)


def _encode_number(value: int | float | complex) -> bytes:
    if isinstance(value, complex):
        if value.imag == 0:
            return _encode_number(value.real)
        return b"c" + _encode_number(value.real) + _encode_number(value.imag)
    if isinstance(value, float):
        if not math.isfinite(value):
            return b"#nan;" if value != value else b"#inf;" if value > 0 else b"#-inf;"
        if not value.is_integer():
            return b"#" + value.hex().encode() + b";"
    return b"#%x;" % int(value)


def _sized(tag: bytes, data: bytes) -> bytes:
    return tag + b"%d:" % len(data) + data


def _counted(tag: bytes, parts: list[bytes]) -> bytes:
    return tag + b"%d:" % len(parts) + b"".join(parts)
