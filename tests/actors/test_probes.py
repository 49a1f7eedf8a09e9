"""Inputs made from inputs."""

from __future__ import annotations

import ast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.probes import probes

LETTERS = "' The quick brown fox jumps over 13 LAZY dogs! '"
scalars = st.none() | st.booleans() | st.integers() | st.floats(-1e6, 1e6) | st.text(max_size=8)
hashable = st.booleans() | st.integers() | st.text(max_size=4) | st.tuples(st.integers())
values = st.recursive(
    scalars | st.sets(hashable, min_size=1, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(hashable, inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("given_", "found"),
    [
        ("5", ("6", "0", "1051", "-6", "8", "19", "1")),
        ("0", ("1", "-1", "1001", "3", "4", "-4")),
        ("-5", ("-4", "0", "951", "4", "-2", "-11", "-9")),
        ("0x10", ("17", "0", "1161", "-17", "19", "52", "12")),
        ("1.5", ("2.5", "0.0", "1016.4375", "-2.5", "4.5", "8.5")),
        ("True", ("False",)),
        ("'ab'", ("'ab' 'b'", "''", f"'ab' {LETTERS}", f"{LETTERS} 'ab'", "'A'", "'ab' 'ab'", "'5'")),
        ("[1, 2]", ("[2, 3]", "[0, 0]", "[1021, 1011, 1, 2]", "[-3, -2]", "[]", "[1, 2, 1, 2]", "[-3]")),
        ("[]", ("[1]", "['a']", "[2]", "[-1.5]", "[3]", "[4]", "[None]")),
        ("()", ("(1,)", "('a',)", "(2,)", "(-1.5,)", "(3,)", "(4,)", "(None,)")),
        ("(1,)", ("(2,)", "(0,)", "(1011, 1)", "(-2,)", "()", "(1, 1)", "(-3,)")),
        ("(1)", ("(2)", "(0)", "(1011)", "(-2)", "(4)", "(7)", "(-3)")),
        ("{1}", ("{2}", "{0}", "{1011, 1}", "{-2}", "set()", "{1, 1}", "{-3}")),
        ("{}", ("{1: 0}", "{'a': 0}", "{2: 0}", "{-1.5: 0}", "{3: 0}", "{4: 0}", "{None: 0}")),
        (
            "{1: [2]}",
            ("{2: [3]}", "{0: [0]}", "{1011: [1021, 2], 1: [2]}", "{-2: [-3]}", "{}", "{1: [2], 1: [2]}", "{-3: [-2]}"),
        ),
        (
            "1, key=[]",
            (
                "2, key=[1]",
                "0, key=['a']",
                "1011, key=[2]",
                "-2, key=[-1.5]",
                "4, key=[3]",
                "7, key=[4]",
                "-3, key=[None]",
            ),
        ),
        ("range(5)", ("range(6)", "range(0)", "range(1051)", "range(-6)", "range(8)", "range(19)", "range(1)")),
        ("x1, None", ()),
        ("[x for x in y]", ("[x for x in y, x for x in y]", "[]")),
        ("# five\n5,", ("6", "0", "1051", "-6", "8", "19", "1")),
        ("'a,['", ("'a,[' 'b'", "''", f"'a,[' {LETTERS}", f"{LETTERS} 'a,['", "'A'", "'a,[' 'a,['", "'5'")),
        ("", ()),
    ],
)
def test_what_is_recognised_is_changed(given_: str, found: tuple[str, ...]) -> None:
    assert tuple(probes(given_)) == found


@given(st.lists(values, min_size=1, max_size=3))
def test_literals_become_other_literals_as_many_and_of_the_same_types(arguments: list[object]) -> None:
    given_ = ", ".join(map(repr, arguments))
    found = tuple(probes(given_))
    assert len(set(found)) == len(found) <= 7 and given_ not in found
    for text in found:
        changed = ast.literal_eval(f"[{text}\n]")
        assert [_kind(value) for value in changed] == [_kind(value) for value in arguments]


@given(
    st.one_of(st.integers(), st.text(max_size=8), st.lists(st.integers()), st.dictionaries(st.integers(), st.text()))
)
def test_one_argument_has_at_least_three_probes_of_another_value(argument: object) -> None:
    found = [ast.literal_eval(text) for text in probes(repr(argument))]
    assert sum(value != argument for value in found) >= 3


@pytest.mark.parametrize("text", ["(" * 199 + "5" + ")" * 199, "[" * 10000, ")" * 9, "1" * 5000, "[1,[]", "'\\"])
def test_nothing_is_raised_for_text_that_is_too_much(text: str) -> None:
    assert len(list(probes(text))) <= 7


@given(st.text("'\"\\()[]{},:=#rf1a \n"))
def test_any_text_is_taken_apart(text: str) -> None:
    assert len(list(probes(text))) <= 7


def _kind(value: object) -> type:
    return float if isinstance(value, float) or type(value) is int else type(value)
