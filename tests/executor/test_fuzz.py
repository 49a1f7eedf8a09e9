"""Random bytes and texts at every place where something untrusted is read, and random values against Python's `==`."""

from __future__ import annotations

import copy
import math
from collections import Counter
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from executor import checker, claims, frames
from executor.keys import KEY_BYTES, key
from executor.reader import _decode
from executor.values import NotAValue, canonical, parse


def examples(count: int) -> settings:
    """However long each takes: the machine may be busy."""
    return settings(max_examples=count, deadline=None)


# --- frames, claims, what the checker says -------------------------------------------------------------------------

codes = st.integers(0, frames.COMPOSITION + 1) | st.integers(0, 255)  # the first that means nothing is among them
items = st.lists(st.tuples(codes, st.binary(max_size=20)), max_size=6)


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """Whole items with bytes changed, cut off, doubled or put in between."""
    body = bytearray(frames.pack(draw(items)))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body)))
        match draw(st.sampled_from(["change", "cut", "insert", "double"])):
            case "change" if place < len(body):
                body[place] = draw(st.integers(0, 255))
            case "cut":
                del body[place:]
            case "insert":
                body[place:place] = draw(st.binary(max_size=8))
            case "double":
                body += body[place:]
    return bytes(body)


bodies = damaged() | st.binary(max_size=60)


@examples(100)
@given(items, st.binary(max_size=12))
def test_whole_items_survive_whatever_follows(found: list[frames.Item], garbage: bytes) -> None:
    body = frames.pack(found)
    assert frames.unpack(body) == found
    more, _ = frames.unpack_whole(body + garbage)
    assert more[: len(found)] == found


@examples(400)
@given(bodies)
@example(frames.ITEM.pack(0, 0xFFFFFFFF) + b"x")
@example(frames.pack([(0, b"ab"), (1, b"cd")])[:-1])
def test_any_bytes_are_items_and_a_rest(body: bytes) -> None:
    found, rest = frames.unpack_whole(body)
    assert frames.pack(found) == body[: len(body) - rest]
    if rest:
        with pytest.raises(frames.FrameError):
            frames.unpack(body)
    else:
        assert frames.unpack(body) == found


@examples(400)
@given(
    st.sampled_from([0, 256, 9, 11, 27, 31, 6 | 0x80]) | st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([frames.ENDED_ITSELF, frames.ENDED_BY_CLOCK, frames.ENDED_BY_FLOOD]) | st.integers(0, 255),
    bodies
    | st.lists(st.tuples(st.integers(0, len(frames.STATUSES)), st.binary(max_size=9)), max_size=4).map(frames.pack),
    st.integers(1, 4),
)
def test_any_reply_is_claims_of_the_first_inputs_and_an_end(status: int, ended: int, body: bytes, asked: int) -> None:
    """Nobody is given what was not said, nobody gets more than one claim, and every input is accounted for."""
    said, death = claims.parse(frames.REPORT.pack(status, ended, 1) + body, asked)
    whole, _ = frames.unpack_whole(body)
    assert [(claim.status, claim.data) for claim in said] == [
        (frames.STATUSES[code], data) for code, data in whole[: len(said)]
    ]
    assert len(said) == asked if not death else len(said) < asked
    if len(whole) > asked:
        assert (said, death) == ([], "protocol")


@examples(400)
@given(bodies, st.integers(0, 4))
def test_the_reader_takes_one_answer_for_each_text_or_none(body: bytes, asked: int) -> None:
    whole, rest = frames.unpack_whole(body)
    sound = not rest and len(whole) == asked and all(code <= frames.COMPOSITION for code, _ in whole)
    if not sound:
        with pytest.raises(frames.FrameError):
            _decode(body, asked)
        return
    for read, (code, data) in zip(_decode(body, asked), whole, strict=True):
        assert read.status == (*frames.STATUSES, "ok", "composition")[code]
        assert read.ok == (code in (frames.OK, frames.CONFINED)) and read.confined == (code == frames.CONFINED)
        assert (read.key + read.payload == data and len(read.key) <= KEY_BYTES) if read.ok else not read.payload


# --- texts -----------------------------------------------------------------------------------------------------------

PIECES = (
    "[", "]", "(", ")", "{", "}", ",", ", ", ": ", "-", "+", "1", "0", "2.5", "1e999", "3j", "nan", "inf", "'a'", '"b"',
    "b'c'", "f'{x}'", "set()", "frozenset", "frozenset({", "None", "True", "...", "x", "x()", "1/0", "().x", "[0][1]",
    "lambda: 0", "*", "**", "_", "\n", "\\", "#", ";", "=", ":=", "if", "for", " in ", "0x", "\0", "\ud800", "\ufeff",
    "9" * 4301, "'\\ud800'", "'\\N{DIGIT ONE}'", "\t", "\f", "not ", "import os", "def f(a):\n return ", "f = ", "@",
)  # fmt: skip
texts = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=12)
REFUSALS = (NotAValue, SyntaxError, ValueError, RecursionError, MemoryError)  # evaluation would raise others


@examples(800)
@given(texts)
def test_any_text_is_a_value_or_refused(text: str) -> None:
    try:
        value = parse(text)
        written = canonical(value)  # which a hexadecimal int may be too long for
    except REFUSALS:
        return
    assert key(parse(written)) == key(value)


@examples(400)
@given(st.sampled_from([frames.PROGRAM, frames.EXPRESSION, frames.VALUE]), texts, st.booleans())
def test_the_checker_has_an_answer_to_any_text(kind: int, text: str, policy: bool) -> None:
    code, data = checker.answer((kind, text.encode("utf-8", "surrogatepass")), policy)
    assert code in (frames.OK, frames.CONFINED, frames.SYNTAX, frames.INPUT, frames.POLICY)
    assert len(data) >= KEY_BYTES if code in (frames.OK, frames.CONFINED) else data
    assert policy or code != frames.CONFINED


@examples(200)
@given(texts, texts, st.booleans())
def test_the_checker_has_an_answer_to_any_composite(names: str, own: str, policy: bool) -> None:
    code, data = checker.answer((frames.COMPOSITE, f"{names}\n{own}".encode("utf-8", "surrogatepass")), policy)
    assert code in (frames.OK, frames.COMPOSITION, frames.SYNTAX, frames.POLICY)
    assert bool(data) == (code != frames.OK)


@examples(100)
@given(st.integers(0, 3), st.binary(max_size=30))
def test_the_checker_has_an_answer_to_any_bytes(kind: int, data: bytes) -> None:
    code, _ = checker.answer((kind, data), True)
    assert code <= frames.COMPOSITION


# --- values ----------------------------------------------------------------------------------------------------------

NAN = math.nan
NUMBERS = (
    0, False, 0.0, -0.0, 0j, 1, True, 1.0, 1 + 0j, 2**53, 2.0**53, 2**53 + 1, 1e300, 10**300, 5e-324, math.inf,
    -math.inf, 1j, -2j, complex(-0.0, 2), complex(math.inf, -0.0),
)  # fmt: skip
SPECIAL: tuple[object, ...] = (
    *NUMBERS, "", b"", "a", b"a", "\ud800", "\0", "1", None, (), frozenset(),
)  # fmt: skip
scalars = (
    st.sampled_from(SPECIAL)
    | st.integers(-3, 3)
    | st.integers()
    | st.floats(allow_nan=False)
    | st.complex_numbers(allow_nan=False)
    | st.text(max_size=4)
    | st.binary(max_size=4)
)
hashables = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashables, inner, max_size=3)
        | st.sets(hashables, max_size=3)
    )


values = st.recursive(hashables, containers, max_leaves=6)
with_nan = st.recursive(hashables | st.just(NAN) | st.just(complex(NAN, 1)), containers, max_leaves=6)


@examples(100)
@given(values)
def test_a_value_survives_its_text(value: object) -> None:
    text = canonical(value)
    assert parse(text) == value
    assert key(parse(text)) == key(value)


@examples(100)
@given(with_nan)
def test_canonical_text_is_a_fixed_point(value: object) -> None:
    text = canonical(parse(canonical(value)))
    assert canonical(parse(text)) == text


def same(left: Any, right: Any) -> bool:
    """Python's `==`, except that NaN equals NaN; written without looking at executor/keys.py."""
    if isinstance(left, (int, float, complex)) and isinstance(right, (int, float, complex)):
        parts = ((left.real, right.real), (left.imag, right.imag))
        return all(a == b or (a != a and b != b) for a, b in parts)
    for kind in (list, tuple):
        if isinstance(left, kind) and isinstance(right, kind):
            return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (set, frozenset)) and isinstance(right, (set, frozenset)):
        return matched(list(left), list(right))
    if isinstance(left, dict) and isinstance(right, dict):
        return matched(list(left.items()), list(right.items()))
    return type(left) is type(right) and bool(left == right)


def matched(left: list[Any], right: list[Any]) -> bool:
    """Whether they are the same in some order."""
    for one in left:
        place = next((i for i, other in enumerate(right) if same(one, other)), None)
        if place is None:
            return False
        del right[place]
    return not right


@st.composite
def mutated(draw: st.DrawFn, value: Any, equal: bool, hashed: bool = False) -> Any:
    """`value`, with parts replaced by equal or, if not `equal`, by nearly equal ones. `hashed`: is to be hashable."""
    if not draw(st.integers(0, 5)):
        return value
    if isinstance(value, (int, float, complex)):
        return draw(st.sampled_from([n for n in relatives(value) if same(n, value) or not equal]))
    if isinstance(value, dict):
        items = [(draw(mutated(k, equal, True)), draw(mutated(v, equal))) for k, v in value.items()]
        return dict(draw(st.permutations(items)))
    if isinstance(value, (set, frozenset)):
        kind = frozenset if hashed else draw(st.sampled_from([set, frozenset]))
        return kind([draw(mutated(v, equal, True)) for v in value])
    if isinstance(value, (list, tuple)):
        parts = [draw(mutated(v, equal, hashed)) for v in value]
        return type(value)(parts) if equal or hashed else draw(st.sampled_from([list, tuple]))(parts)
    if equal or value is None:
        return value
    return draw(st.sampled_from([value, value + value[:1], value[::-1], str(value).encode("utf-8", "surrogatepass")]))


def relatives(number: Any) -> list[Any]:
    """Numbers that equal `number`, or are as near as can be."""
    if isinstance(number, complex):
        return [number, number.conjugate(), number.real, number.imag]
    if isinstance(number, float) and not math.isfinite(number):
        return [number, -number, complex(number)]
    found = [number, int(number), int(number) + 1]
    if abs(number) < 2**1000:
        near = float(number)
        found += [near, complex(near), complex(near, -0.0), math.nextafter(near, math.inf), -near]
    return [*found, bool(number)] if number in (0, 1) else found


numeric = containers(st.sampled_from(NUMBERS) | with_nan)
pairs = st.tuples(numeric, st.booleans()).flatmap(lambda drawn: st.tuples(st.just(drawn[0]), mutated(*drawn)))


def read_again(value: Any) -> Any:
    """As the checker meets it: written and read again, where equal keys of a dict have become one."""
    return parse(canonical(value))


def test_keys_are_equal_exactly_when_values_are() -> None:
    seen: Counter[tuple[bool, bool]] = Counter()

    @examples(1200)
    @given(pairs | st.tuples(with_nan, with_nan))
    def compare(pair: tuple[Any, Any]) -> None:
        left, right = map(read_again, pair)
        equal = same(left, right)
        assert (key(left) == key(right)) == equal == same(right, left)
        seen[equal, canonical(left) == canonical(right)] += 1

    compare()
    assert seen[True, False] > 50, seen  # equal values of different text
    assert seen[False, False] > 200, seen


@examples(100)
@given(values, values)
def test_keys_agree_with_the_interpreter(left: object, right: object) -> None:
    assert (key(left) == key(right)) == (left == right)
    assert same(left, right) == (left == right)


@examples(100)
@given(st.lists(st.sampled_from(NUMBERS[:9]), max_size=4))
def test_lists_of_near_equals_agree_with_the_interpreter(parts: list[object]) -> None:
    for other in (list(reversed(parts)), tuple(parts), [parts], copy.copy(parts)):
        assert (key(parts) == key(other)) == (parts == other)
