import dataclasses
import random
import struct
import types
import zlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgpack
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import wire
from common.codec import codec
from common.errors import WireError
from common.messages import MESSAGES, Deliver, Failed, Hello, Ping, RefusedHello, Renew, WantLeases
from common.types import Group, Kind, Sample, Span, Task, TaskType
from common.wire import Limits, decode, encode, pack_record, unpack_record

quick = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Any value of a type that can travel."""
    scalars: dict[Any, st.SearchStrategy[Any]] = {
        int: st.integers(-(1 << 63), (1 << 64) - 1),
        bool: st.booleans(),
        float: st.floats(),
        str: st.text(st.characters(), max_size=12),
    }
    if annotation in scalars:
        return scalars[annotation]
    if isinstance(annotation, type) and issubclass(annotation, StrEnum):
        return st.sampled_from(annotation)
    if isinstance(annotation, type) and dataclasses.is_dataclass(annotation):
        hints = get_type_hints(annotation)
        return st.builds(annotation, **{f.name: values(hints[f.name]) for f in dataclasses.fields(annotation)})
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of(*(st.none() if a is type(None) else values(a) for a in arguments))
    if origin is tuple and arguments[-1] is Ellipsis:
        return st.lists(values(arguments[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, arguments))
    if origin is Mapping:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=3)
    (scalar,) = get_args(arguments[1])
    bounds = (-(1 << 31), (1 << 31) - 1)
    items = st.integers(*bounds) if np.issubdtype(scalar, np.integer) else st.floats(width=32)
    return st.lists(items, max_size=5).map(lambda listed: np.array(listed, dtype=scalar))


messages = st.one_of(*map(values, MESSAGES))


def plain(value: Any) -> Any:
    """A form in which equal messages compare equal, NaN and arrays included."""
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.ndim, value.tobytes())
    if isinstance(value, float):
        return struct.pack("<d", value)
    if dataclasses.is_dataclass(value):
        return (type(value), [plain(getattr(value, f.name)) for f in dataclasses.fields(value)])
    if isinstance(value, tuple):
        return tuple(map(plain, value))
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return (type(value), value)


def group(samples: int = 6, tokens: int = 500) -> Group:
    draw = np.random.default_rng(0)
    answers = tuple(
        Sample(
            stream=Kind.SOLVE_ABDUCTION,
            prompt=0,
            tokens=draw.integers(0, 150_000, tokens).astype(np.int32),
            logprobs=draw.normal(size=tokens).astype(np.float32),
            spans=(Span(3, 0, tokens // 2), Span(4, tokens // 2, tokens)),
            reward=0.5,
            correct=True,
            status="ok",
        )
        for _ in range(samples)
    )
    task = Task(TaskType.ABDUCTION, "def f(x):\n    return x + 1\n", ("1",), ("2",), "key")
    prompt = draw.integers(0, 150_000, 300).astype(np.int32)
    return Group(12, 0, Kind.PROPOSE_ABDUCTION, 0, (prompt,), answers, task, 0.5)


def sealed(body: object, *arrays: bytes, schema: int = wire.SCHEMA) -> list[bytes]:
    """Frames with a right CRC around any content, as a hostile but careful peer would make them."""
    frames = [body if isinstance(body, bytes) else msgpack.packb(body), *arrays]
    head = struct.pack("<4sIQ", wire.MAGIC, schema, 7)
    crc = zlib.crc32(struct.pack(f"<{len(frames)}Q", *map(len, frames)), zlib.crc32(head))
    for frame in frames:
        crc = zlib.crc32(frame, crc)
    return [head + struct.pack("<I", crc), *frames]


@quick
@given(st.integers(0, (1 << 64) - 1), messages)
def test_every_message_survives_the_wire(request_id: int, message: object) -> None:
    returned, copy = decode(encode(request_id, message))
    assert returned == request_id
    assert plain(copy) == plain(message)
    assert plain(unpack_record(pack_record(message))) == plain(message)


def test_a_group_costs_at_most_nine_bytes_per_answer_token() -> None:
    frames = encode(1, Deliver(group(samples=6, tokens=500)))
    assert sum(map(len, frames)) / (6 * 500) <= 9


def test_decoded_arrays_are_read_only_and_not_copied() -> None:
    frames = encode(1, Deliver(group()))
    _, message = decode(frames)
    tokens = message.group.samples[0].tokens
    assert not tokens.flags.writeable
    assert np.shares_memory(tokens, np.frombuffer(frames[3], np.int32))


def test_strided_arrays_travel_by_value() -> None:
    tokens = np.arange(10, dtype=np.int32)[::2]
    _, copy = decode(encode(1, Group(1, 0, Kind.SEED, 0, (tokens,))))
    assert copy.prompts[0].tolist() == [0, 2, 4, 6, 8]


# -- what comes in --------------------------------------------


@quick
@given(st.lists(st.binary(max_size=64), max_size=6))
def test_random_frames_are_refused(frames: list[bytes]) -> None:
    with pytest.raises(WireError):
        decode(frames)


@quick
@given(st.binary(max_size=200))
def test_random_records_are_refused(blob: bytes) -> None:
    with pytest.raises(WireError):
        unpack_record(blob)


@quick
@given(messages, st.randoms(use_true_random=False))
def test_any_flipped_bit_is_found(message: object, draw: random.Random) -> None:
    frames = encode(5, message)
    index = draw.choice([i for i, frame in enumerate(frames) if frame])
    altered = bytearray(frames[index])
    altered[draw.randrange(len(altered))] ^= 1 << draw.randrange(8)
    frames[index] = bytes(altered)
    with pytest.raises(WireError):
        decode(frames)


@quick
@given(messages, st.randoms(use_true_random=False))
def test_a_damaged_record_is_found(message: object, draw: random.Random) -> None:
    blob = pack_record(message)
    altered = bytearray(blob)
    altered[draw.randrange(len(blob))] ^= 1 << draw.randrange(8)
    for damaged in (bytes(altered), blob[: draw.randrange(len(blob))], blob + b"\0"):
        with pytest.raises(WireError):
            unpack_record(damaged)


@quick
@given(messages)
def test_missing_and_moved_frames_are_found(message: object) -> None:
    frames = encode(5, message)
    with pytest.raises(WireError):
        decode(frames[:-1])
    with pytest.raises(WireError):
        decode([*frames, b""])
    if len(frames) > 2 and frames[2]:
        with pytest.raises(WireError, match="CRC"):
            decode([frames[0], frames[1] + frames[2][:1], frames[2][1:], *frames[3:]])


@quick
@given(st.binary(max_size=80), st.lists(st.binary(max_size=16), max_size=3))
def test_a_right_crc_around_random_msgpack_raises_nothing_else(body: bytes, arrays: list[bytes]) -> None:
    try:
        decode(sealed(body, *arrays))
    except WireError:
        pass


anything = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 99) | st.floats() | st.text(max_size=9) | st.binary(max_size=5),
    lambda inner: st.lists(inner, max_size=9) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=30,
)


@quick
@given(st.integers(-2, len(MESSAGES) + 1), anything, st.lists(st.binary(max_size=16), max_size=3))
def test_a_right_crc_around_wrong_types_raises_nothing_else(number: int, fields: object, arrays: list[bytes]) -> None:
    try:
        _, message = decode(sealed([number, fields], *arrays))
    except WireError:
        return
    assert plain(decode(encode(1, message))[1]) == plain(message)


@pytest.mark.parametrize(
    ("frames", "reason"),
    [
        ([], "0 frames"),
        ([b"", b""], "header of 0 bytes"),
        ([b"x" * 20, b""], "magic"),
        (sealed(b"\xc1"), "not msgpack"),
        (sealed(b"\x92\x01"), "not msgpack"),
        (sealed(msgpack.packb([3, []]) + b"\0"), "not msgpack"),
        (sealed(b"\xdd\xff\xff\xff\xff"), "not msgpack"),
        (sealed(b"\x91" * 4000), "not msgpack"),
        (sealed([3, {1: 2}]), "not msgpack"),
        (sealed(b"\xd6\xff\x00\x00\x00\x00"), "not msgpack"),
        (sealed([3]), "message number"),
        (sealed([True, []]), "message number"),
        (sealed([len(MESSAGES), []]), "no message has number"),
        (sealed([MESSAGES.index(Ping), [1]]), "Ping: expected a list of 0 fields"),
        (sealed([MESSAGES.index(WantLeases), ["2"]]), "WantLeases.capacity: expected int, got str"),
        (sealed([MESSAGES.index(WantLeases), [True]]), "WantLeases.capacity: expected int, got bool"),
        (sealed([MESSAGES.index(Renew), [[1, None]]]), "Renew.leases: expected int, got NoneType"),
        (sealed([MESSAGES.index(Ping), []], b"abcd"), "an array that no field refers to"),
        (sealed([MESSAGES.index(Group), [1, 0, "nap", 0, [], [], None, None, "", [], [], ""]]), "'nap' is not a Kind"),
        (sealed([MESSAGES.index(Group), [1, 0, "seed", 0, [0], [], None, None, "", [], [], ""]]), "array reference"),
        (
            sealed([MESSAGES.index(Group), [1, 0, "seed", 0, [1], [], None, None, "", [], [], ""]], b""),
            "array reference",
        ),
        (sealed([MESSAGES.index(Group), [1, 0, "seed", 0, [0], [], None, None, "", [], [], ""]], b"abc"), "3 bytes"),
        (sealed([MESSAGES.index(Ping), []], schema=1), "schema 00000001"),
    ],
)
def test_the_reason_is_precise(frames: list[bytes], reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        decode(frames)


@pytest.mark.parametrize("value", [["a"], ["a", 1.0, 2.0], ["a", "b"], [1, 1.0], {"a": 1.0}, None])
def test_rows_have_their_width_and_types(value: object) -> None:
    with pytest.raises(WireError, match="expected"):
        codec(tuple[str, float]).unpack(value, iter(()))


@pytest.mark.parametrize("message", [Hello(1, "r", "actor", 0, 0, "d"), RefusedHello("schema")])
def test_the_handshake_is_read_across_schemas(message: object) -> None:
    _, body = encode(7, message)
    assert decode(sealed(body, schema=1)) == (7, message)


# -- limits --------------------------------------------


@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        (Limits(frames=5), "frames; the limit is 5"),
        (Limits(frame_bytes=100), "frame of"),
        (Limits(total_bytes=1000), "message of"),
    ],
)
def test_limits_hold_at_both_ends(limits: Limits, reason: str) -> None:
    message = Deliver(group())
    with pytest.raises(WireError, match=reason):
        encode(1, message, limits)
    with pytest.raises(WireError, match=reason):
        decode(encode(1, message), limits)


def test_lists_of_the_header_are_bounded() -> None:
    with pytest.raises(WireError, match="exceeds"):
        decode(encode(1, Renew(tuple(range(101)))), Limits(items=100))


# -- what goes out --------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (object(), "object is not a message"),
        (WantLeases("2"), "WantLeases.capacity: expected int, got str"),  # type: ignore[arg-type]
        (WantLeases(1 << 64), "WantLeases"),
        (Renew([1]), "Renew.leases: expected tuple, got list"),  # type: ignore[arg-type]
        (Group(1, 0, "seed", 0), "Group.kind: expected Kind, got str"),  # type: ignore[arg-type]
        (Group(1, 0, Kind.SEED, 0, (np.zeros(2),)), "Group.prompts: expected a 1-D array of int32"),  # type: ignore
        (Group(1, 0, Kind.SEED, 0, (np.zeros((2, 2), np.int32),)), "got 2-D"),
        (Group(1, 0, Kind.SEED, 0, solve_rate=np.float32(1)), "expected float, got float32"),  # type: ignore
    ],
)
def test_wrong_messages_do_not_leave(message: object, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        encode(1, message)


@pytest.mark.parametrize("request_id", [-1, 1 << 64])
def test_request_ids_have_64_bits(request_id: int) -> None:
    with pytest.raises(WireError, match="64 bits"):
        encode(request_id, Ping())


def test_an_enum_member_may_stand_for_open_text() -> None:
    copy = decode(encode(1, Failed(TaskType.DEDUCTION)))[1]
    assert type(copy.reason) is str
    assert copy.reason == "deduction"


def test_lone_surrogates_of_a_model_travel() -> None:
    assert decode(encode(1, Failed("\ud800")))[1].reason == "\ud800"


@pytest.mark.parametrize("annotation", [object, list[int], dict[str, int], int | str, np.ndarray, bytes])
def test_types_outside_the_wire_are_a_programming_error(annotation: Any) -> None:
    with pytest.raises(TypeError, match="cannot travel"):
        codec(annotation)


def test_a_changed_field_changes_the_shape() -> None:
    one = dataclasses.make_dataclass("Note", [("text", str)], frozen=True)
    two = dataclasses.make_dataclass("Note", [("text", str | None)], frozen=True)
    assert codec(one).shape == "Note(text:str)"
    assert codec(two).shape == "Note(text:str?)"
