"""Figures of programs and values, read off their text: by hand, and for texts that nobody should read."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learner.literals import MAX_CHARACTERS, argument_types
from learner.program import MAX_NODES, Program, distance, measure

LOOP = """\
def f(xs, k):
    total = 0

    for x in xs:
        if x > k:
            total += x * 2
    return total
"""
NAMES = st.sampled_from(["a", "b", "total", "x"])
LINES = st.lists(st.tuples(NAMES, NAMES, st.integers(0, 9)).map(lambda p: f" {p[0]} = {p[1]} + {p[2]}"), max_size=6)
PROGRAMS = LINES.map(lambda lines: "\n".join(["def f(a):", *lines, " return a"]))
DEEP = {
    "minus": "x = " + "-" * 7000 + "1",
    "sums": "x = " + "1+" * 4000 + "1",
    "lambdas": "x = " + "lambda:" * 1100 + "1",
    "calls": "x = f" + "()" * 4000,
    "brackets": "x = " + "[" * 300 + "]" * 300,
    "branches": "if a: pass\n" + "elif a: pass\n" * 1000,
    "digits": "x = " + "1" * 9000,
}
WRONG = {"syntax": "def f(:", "null": "x = '\0'", "surrogate": "x = '\ud800'", "newer": "type X = int"}


def program(source: str) -> Program:
    found = measure(source)
    assert found is not None
    return found


def test_figures_by_hand() -> None:
    got = program(LOOP)
    assert (got.lines, got.statements) == (6, 6)  # def, =, for, if, +=, return
    assert got.cyclomatic == 3  # 1 + for + if
    assert got.cognitive == 3  # for: 1, if inside it: 2
    assert 0 < got.effort == pytest.approx(got.volume * got.difficulty)


def test_a_program_without_operations_has_no_halstead_volume() -> None:
    got = program("def f(a):\n return a")
    assert (got.cognitive, got.cyclomatic, got.volume, got.effort, got.statements) == (0, 1, 0.0, 0.0, 2)


def test_halstead_by_hand() -> None:
    # operators: +, * (2 distinct, 2 in all); operands: 1, 2, and a twice (3 distinct, 4 in all)
    got = program("def f(a):\n b = a + 1\n return a * 2")
    assert got.volume == pytest.approx(6 * 2.321928094887362)  # (2 + 4) · log2(2 + 3)
    assert got.difficulty == pytest.approx(2 / 2 * 4 / 3)


def test_the_tree_is_linear_in_source_order() -> None:
    assert program("a = b + 1").nodes == (
        "Module", "Assign", "Name", "'a'", "BinOp", "Name", "'b'", "Add", "Constant", "1",
    )  # fmt: skip


def test_distance_by_hand() -> None:
    one, other = program("a = b + 1"), program("a = b + 2")
    assert distance(one, other) == pytest.approx(1 - 2 * 9 / 20)  # one of ten nodes differs
    assert distance(program("a = b  # text"), program("a=b")) == 0.0


@given(PROGRAMS, PROGRAMS)
def test_distance_is_symmetric_bounded_and_zero_for_equals(a: str, b: str) -> None:
    one, other = program(a), program(b)
    assert distance(one, other) == distance(other, one)
    assert 0.0 <= distance(one, other) <= 1.0
    assert (distance(one, other) == 0.0) == (ast.dump(ast.parse(a)) == ast.dump(ast.parse(b)))


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_program_has_no_figures(name: str) -> None:
    assert measure(WRONG[name]) is None


@pytest.mark.parametrize("name", DEEP)
def test_programs_made_to_break_parsers_have_none_either(name: str) -> None:
    assert measure(DEEP[name]) is None


def test_limits() -> None:
    many = "\n".join(["a=b"] * (MAX_NODES // 5 + 1))  # Assign, Name, 'a', Name, 'b' a line
    assert len(many) < 16384 and measure(many) is None
    assert measure("#" * 16385) is None
    assert measure("#" * 16384) is not None


@given(st.text(max_size=80))
def test_any_text_is_measured_or_refused(text: str) -> None:
    assert measure(text) is None or program(text).nodes[0] == "Module"


@pytest.mark.parametrize(
    ("text", "types"),
    {
        "1, [2, 3], 'x'": ("int", "list", "str"),
        "": (),
        "-1.5": ("float",),
        "+True": ("bool",),
        "(1,), {1: 2}, {1}, b'x', None": ("tuple", "dict", "set", "bytes", "NoneType"),
        "1 - 2j, 2j, -1 + 1j": ("complex", "complex", "complex"),
        "set(), frozenset({1})": ("set", "frozenset"),
        "{'a': __import__('os')}": ("dict",),
        "__import__('os').system('x')": ("other",),
        "x + 1, lambda: 0": ("other", "other"),
        "1) + g(2": ("other",),
        "k=1": ("int",),
        "[1": ("other",),
        "'" + "x" * MAX_CHARACTERS + "'": ("other",),
        "-" * 9000 + "1": ("other",),
    }.items(),
    ids=lambda value: value[:20] if isinstance(value, str) else None,
)
def test_types_of_arguments(text: str, types: tuple[str, ...]) -> None:
    assert argument_types(text) == types


NUMBERS = st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | NUMBERS | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@given(st.lists(VALUES, max_size=4))
def test_a_literal_has_the_type_of_its_value(values: list[object]) -> None:
    text = ", ".join(repr(value) for value in values)
    assert argument_types(text) == tuple(type(value).__name__ for value in values)
