"""Values: text and back, and the equality of keys against Python's own."""

from __future__ import annotations

import copy
import math
import struct
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from executor import frames
from executor.keys import key
from executor.values import MAX_DEPTH, NotAValue, canonical, parse

numbers = (
    st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([0.0, -0.0, 1.0, 2.0**53, 2**53 + 1, 1e300, 1 + 0j, 1j, -2j, complex(-0.0, 2)])
    | st.complex_numbers(allow_nan=False)
)
scalars = st.none() | numbers | st.text(max_size=4) | st.binary(max_size=4)
hashables = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
values = st.recursive(
    hashables,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.sets(hashables, max_size=3)
    ),
    max_leaves=6,
)


@given(values)
def test_a_value_survives_its_text(value: object) -> None:
    text = canonical(value)
    assert parse(text) == value
    assert key(parse(text)) == key(value)


@given(values)
def test_canonical_text_is_a_fixed_point(value: object) -> None:
    text = canonical(parse(canonical(value)))
    assert canonical(parse(text)) == text


@settings(max_examples=300)
@given(values, values)
def test_keys_agree_with_equality(left: object, right: object) -> None:
    assert (key(left) == key(right)) == (left == right)


@given(st.lists(st.sampled_from([0, False, 0.0, -0.0, 0j, 1, True, 1.0, 1 + 0j, "", b"", (), None]), max_size=4))
def test_lists_of_near_equals_agree_with_equality(items: list[object]) -> None:
    for other in (list(reversed(items)), tuple(items), [items], copy.copy(items)):
        assert (key(items) == key(other)) == (items == other)


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        (1, True, True),
        (1, 1.0, True),
        (-0.0, 0, True),
        (math.nan, float("nan"), True),
        ([math.nan], [math.nan], True),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ({1, 2}, frozenset({2, 1}), True),
        ([1], (1,), False),
        ("a", b"a", False),
        ("1", 1, False),
        (2**53, float(2**53), True),
        (2**53 + 1, float(2**53), False),
        ([0xC1, 2], [complex(1, 2)], False),
        (["ab", "c"], ["a", "bc"], False),
        ([[], []], [[[]]], False),
        (0.1 + 0.2, 0.3, False),
    ],
)
def test_equality(left: object, right: object, equal: bool) -> None:
    assert (key(left) == key(right)) is equal


def test_sets_are_written_in_the_order_of_their_elements() -> None:
    assert canonical({"b", "a", 1}) == "{'a', 'b', 1}"
    assert canonical(set()) == "set()"
    assert canonical(frozenset({(2,), (1,)})) == "frozenset({(1,), (2,)})"


@pytest.mark.parametrize("text", ["nan", "-inf", "[inf, -nan]", "(nan+infj)", "-nanj", "frozenset()", "set()", " 1 "])
def test_texts_that_are_no_python_literals_are_read(text: str) -> None:
    value = parse(text)
    assert key(parse(canonical(value))) == key(value)


class Always:
    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("value", [Counter("a"), Always(), object(), len, int, bytearray(1), range(3), ..., [Always()]])
def test_other_types_are_no_values(value: object) -> None:
    with pytest.raises(NotAValue):
        canonical(value)
    with pytest.raises(NotAValue):
        if isinstance(value, Counter):  # `key` is given what `parse` returned, which has no subclasses
            raise NotAValue
        key(value)


@pytest.mark.parametrize(
    "text",
    [
        "f()", "__import__('os').system('true')", "[x for x in (1,)]", "1 + 2", "1 if 1 else 2", "{**{}}", "x", "...",
        "lambda: 1", "f'{1}'", "'a' * 9", "-'a'", "{[]: 1}", "{[]}", "[*[1]]", "set([1])", "1j + 1j", "True + 1j",
        "int", "(yield)", "a.b", "a[0]", "not 1", "~1", "1 < 2", "-True",
    ],
)  # fmt: skip
def test_expressions_are_not_literals(text: str) -> None:
    with pytest.raises((NotAValue, SyntaxError)):
        parse(text)


def test_depth_is_bounded_on_both_ways() -> None:
    def nested(depth: int) -> object:
        value: object = -1 - 1j
        for _ in range(depth):
            value = [value]
        return value

    deepest = nested(MAX_DEPTH + 1)
    assert parse(canonical(deepest)) == deepest
    key(deepest)
    with pytest.raises(NotAValue):
        canonical(nested(MAX_DEPTH + 2))
    with pytest.raises(NotAValue):
        parse("[" * 60 + "]" * 60)


@given(st.text(max_size=30))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    try:
        value = parse(text)
    except (NotAValue, SyntaxError, ValueError):
        return
    assert key(parse(canonical(value))) == key(value)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=20)), max_size=5), st.binary(max_size=12))
def test_frames_survive_and_torn_ones_are_seen(items: list[frames.Item], garbage: bytes) -> None:
    body = frames.pack(items)
    assert frames.unpack(body) == items
    found, rest = frames.unpack_whole(body + garbage)
    assert found[: len(items)] == items
    assert len(frames.pack(found)) + rest == len(body) + len(garbage)


def test_a_frame_that_promises_too_much_is_refused() -> None:
    with pytest.raises(frames.FrameError):
        frames.unpack(struct.pack("<BI", 0, 0xFFFFFFFF) + b"x")
