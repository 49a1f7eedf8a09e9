"""Values: text and back, and when two of them are the same. Random ones are met in test_fuzz.py."""

from __future__ import annotations

import math
from collections import Counter

import pytest

from executor.keys import key
from executor.values import MAX_DEPTH, NotAValue, canonical, parse


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
        ({math.nan: 1}, {float("nan"): True}, True),
        ({1: "a", 2.0: "b"}, {2: "b", True: "a"}, True),
        ({frozenset(): (), 0: 1}, {-0.0: 1.0, frozenset(): ()}, True),
        ({frozenset({frozenset()})}, {frozenset({frozenset({frozenset()})})}, False),
        (complex(math.nan, 0), math.nan, True),
        (complex(1, math.nan), complex(math.nan, 1), False),
        (10**300, 1e300, False),
        (int(1e300), 1e300, True),
        ("\ud800", "\udfff", False),
        ("\ud83d\ude00", "\U0001f600", False),
        ("a\0", "a", False),
        (5e-324, 0, False),
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


@pytest.mark.parametrize("real", [0.0, -0.0, 1.5, math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("imaginary", [0.0, -0.0, 1.5, math.inf, -math.inf, math.nan])
def test_complex_numbers_survive_their_text(real: float, imaginary: float) -> None:
    value = complex(real, imaginary)
    assert key(parse(canonical(value))) == key(value)


@pytest.mark.parametrize("value", [0.1, 1 / 3, 5e-324, 1.7976931348623157e308, 2.0**53 + 2, -0.0, 1e22, 1e23])
def test_floats_are_written_exactly(value: float) -> None:
    again = parse(canonical(value))
    assert isinstance(again, float)
    assert (again, math.copysign(1, again)) == (value, math.copysign(1, value))


@pytest.mark.parametrize("value", ["\ud800", "a\0b", "\u2028\x85\r\n", "'\"\\", "\U0010ffff", bytes(range(256)), ""])
def test_texts_are_written_in_visible_letters(value: object) -> None:
    text = canonical([value, {value: value}])
    assert text.isprintable()
    assert parse(text) == [value, {value: value}]


def test_an_int_of_too_many_digits_has_no_text() -> None:
    assert canonical(10**4299) == "1" + "0" * 4299
    with pytest.raises(ValueError, match="digits"):
        canonical([10**4300])


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


def test_each_nan_is_its_own_element() -> None:
    assert [canonical(parse(text)) for text in ("{nan, nan}", "{nan: 1, nan: 2}")] == ["{nan, nan}", "{nan: 1, nan: 2}"]
    assert key(parse("{nan, nan}")) != key(parse("{nan}"))
