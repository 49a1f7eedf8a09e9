"""How a frozen dataclass becomes plain msgpack values plus arrays, and back.

A codec is derived from a type annotation once and kept. A dataclass becomes the list of its fields; a numpy
array leaves the values and becomes one frame of raw little-endian bytes, in whose place stands its index.
Both directions check every value against its annotation, so nothing of a wrong type leaves a process or
enters one.

Invariants: arrays are referenced exactly once, in order; the only error of `pack` and `unpack` is WireError,
which names the field. `shape` is equal for two processes exactly when their classes have equal fields of
equal types.

Not guaranteed: relations between fields (lengths that must agree, ranges). Decoded arrays are read-only
views.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np

from common.errors import WireError

DTYPES = {np.int32: "<i4", np.int64: "<i8", np.float32: "<f4", np.float64: "<f8"}

Pack = Callable[[Any, list[bytes]], Any]  # (value, arrays to append to) → msgpack value
Unpack = Callable[[Any, Iterator[tuple[int, bytes]]], Any]  # (msgpack value, arrays not yet taken) → value


@dataclass(frozen=True, slots=True)
class Codec:
    shape: str  # canonical text of the type, down to the last field
    pack: Pack
    unpack: Unpack


@cache
def codec(annotation: Any) -> Codec:
    """The codec of a type annotation; TypeError if values of it cannot travel."""
    if annotation in _SCALARS:
        return _SCALARS[annotation]
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return _enum(annotation)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        return _record(annotation)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        return _optional(codec(next(a for a in arguments if a is not type(None))))
    if origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis:
        return _sequence(codec(arguments[0]))
    if origin is tuple and Ellipsis not in arguments:
        return _row(tuple(codec(a) for a in arguments))
    if origin is Mapping and arguments[0] is str:
        return _mapping(codec(arguments[1]))
    if origin is np.ndarray:
        (scalar,) = get_args(arguments[1])
        if scalar in DTYPES:
            return _array(DTYPES[scalar])
    raise TypeError(f"values of {annotation!r} cannot travel")


def _wrong(expected: str, value: object) -> WireError:
    return WireError(f"expected {expected}, got {type(value).__name__}")


# -- scalars ---------------------------------------------------------------------------------------------


def _int(value: Any, _: object) -> int:
    if type(value) is not int:
        raise _wrong("int", value)
    return value


def _bool(value: Any, _: object) -> bool:
    if type(value) is not bool:
        raise _wrong("bool", value)
    return value


def _float(value: Any, _: object) -> float:
    if type(value) is float:
        return value
    if isinstance(value, float) or type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise WireError("int too large for a float") from None
    raise _wrong("float", value)


def _str(value: Any, _: object) -> str:
    if type(value) is str:
        return value
    if isinstance(value, str):  # a StrEnum member in a field of open-ended text
        return str(value)
    raise _wrong("str", value)


_SCALARS: dict[Any, Codec] = {
    int: Codec("int", _int, _int),
    bool: Codec("bool", _bool, _bool),
    float: Codec("float", _float, _float),
    str: Codec("str", _str, _str),
}


def _enum(kind: type[StrEnum]) -> Codec:
    members = {member.value: member for member in kind}

    def pack(value: Any, _: list[bytes]) -> str:
        if type(value) is not kind:
            raise _wrong(kind.__name__, value)
        return str(value.value)

    def unpack(value: Any, _: object) -> StrEnum:
        if type(value) is not str:
            raise _wrong(kind.__name__, value)
        if value not in members:
            raise WireError(f"{value[:40]!r} is not a {kind.__name__}")
        return members[value]

    return Codec(f"{kind.__name__}({'|'.join(members)})", pack, unpack)


# -- compounds -------------------------------------------------------------------------------------------


def _optional(inner: Codec) -> Codec:
    def pack(value: Any, arrays: list[bytes]) -> Any:
        return None if value is None else inner.pack(value, arrays)

    def unpack(value: Any, arrays: Iterator[tuple[int, bytes]]) -> Any:
        return None if value is None else inner.unpack(value, arrays)

    return Codec(f"{inner.shape}?", pack, unpack)


def _sequence(inner: Codec) -> Codec:
    pack_one, unpack_one = inner.pack, inner.unpack

    def pack(value: Any, arrays: list[bytes]) -> list[Any]:
        if type(value) is not tuple:
            raise _wrong("tuple", value)
        return [pack_one(item, arrays) for item in value]

    def unpack(value: Any, arrays: Iterator[tuple[int, bytes]]) -> tuple[Any, ...]:
        if type(value) is not list:
            raise _wrong("list", value)
        return tuple([unpack_one(item, arrays) for item in value])

    return Codec(f"[{inner.shape}]", pack, unpack)


def _row(columns: tuple[Codec, ...]) -> Codec:
    width = len(columns)

    def pack(value: Any, arrays: list[bytes]) -> list[Any]:
        if type(value) is not tuple or len(value) != width:
            raise _wrong(f"tuple of {width}", value)
        return [column.pack(item, arrays) for column, item in zip(columns, value, strict=True)]

    def unpack(value: Any, arrays: Iterator[tuple[int, bytes]]) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != width:
            raise _wrong(f"list of {width}", value)
        return tuple([column.unpack(item, arrays) for column, item in zip(columns, value, strict=True)])

    return Codec(f"({','.join(column.shape for column in columns)})", pack, unpack)


def _mapping(inner: Codec) -> Codec:
    def pack(value: Any, arrays: list[bytes]) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise _wrong("mapping", value)
        return {_str(key, None): inner.pack(item, arrays) for key, item in value.items()}

    def unpack(value: Any, arrays: Iterator[tuple[int, bytes]]) -> dict[str, Any]:
        if type(value) is not dict:
            raise _wrong("map", value)
        return {_str(key, None): inner.unpack(item, arrays) for key, item in value.items()}

    return Codec(f"{{{inner.shape}}}", pack, unpack)


def _array(order: str) -> Codec:
    dtype = np.dtype(order)

    def pack(value: Any, arrays: list[bytes]) -> int:
        if not isinstance(value, np.ndarray):
            raise _wrong(f"array of {dtype}", value)
        if value.dtype != dtype or value.ndim != 1:
            raise WireError(f"expected a 1-D array of {dtype}, got {value.ndim}-D of {value.dtype}")
        arrays.append(value.tobytes())
        return len(arrays) - 1

    def unpack(value: Any, arrays: Iterator[tuple[int, bytes]]) -> Any:
        index, frame = next(arrays, (-1, b""))
        if type(value) is not int or value != index:
            raise WireError(f"array reference is not the next frame ({index})")
        if len(frame) % dtype.itemsize:
            raise WireError(f"{len(frame)} bytes are not a whole number of {dtype}")
        return np.frombuffer(frame, dtype)

    return Codec(order, pack, unpack)


def _record(kind: type) -> Codec:
    hints = get_type_hints(kind)
    fields = tuple((f.name, codec(hints[f.name])) for f in dataclasses.fields(kind))
    names = ",".join(f"{name}:{inner.shape}" for name, inner in fields)

    def pack(value: Any, arrays: list[bytes]) -> list[Any]:
        if type(value) is not kind:
            raise _wrong(kind.__name__, value)
        row: list[Any] = []
        try:
            for name, inner in fields:
                row.append(inner.pack(getattr(value, name), arrays))
        except WireError as error:
            raise WireError(f"{kind.__name__}.{fields[len(row)][0]}: {error}") from None
        return row

    def unpack(value: Any, arrays: Iterator[tuple[int, bytes]]) -> Any:
        if type(value) is not list or len(value) != len(fields):
            raise WireError(f"{kind.__name__}: expected a list of {len(fields)} fields")
        row: list[Any] = []
        try:
            for (_, inner), item in zip(fields, value, strict=True):
                row.append(inner.unpack(item, arrays))
        except WireError as error:
            raise WireError(f"{kind.__name__}.{fields[len(row)][0]}: {error}") from None
        return kind(*row)

    return Codec(f"{kind.__name__}({names})", pack, unpack)
