"""Seeds are a pure function of names."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from common.seeds import derive

names = st.lists(st.integers() | st.text(alphabet="ab:1"), max_size=4)


def test_known_values() -> None:
    """Changing them changes every run that was ever recorded."""
    assert derive(0, 0) == 7112371651700227971
    assert derive(0, "eval", "deduction", "k") == 3061725887759272441


@given(names)
def test_63_bits(parts: list[int | str]) -> None:
    assert 0 <= derive(*parts) < 1 << 63


@given(names, names)
def test_different_names_differ(one: list[int | str], other: list[int | str]) -> None:
    assert (derive(*one) == derive(*other)) == (one == other)


def test_a_number_is_not_its_text() -> None:
    assert derive(1) != derive("1")
