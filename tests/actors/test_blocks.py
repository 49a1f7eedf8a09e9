"""Fenced blocks in any text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import blocks

bodies = st.text("ab \n.#'\"", min_size=1).map(lambda body: body.strip("\n").rstrip()).filter(bool)


@given(st.lists(st.tuples(st.sampled_from(["python", "input", "x_1", ""]), bodies), max_size=5), bodies)
def test_what_was_written_is_read(written: list[tuple[str, str]], between: str) -> None:
    text = f"\n{between}\n".join(blocks.write(name, body) for name, body in written)
    assert blocks.read(text) == written


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```Python\nx\n```", [("python", "x")]),
        ("  ```py\n  x\n  ```", [("python", "  x")]),
        ("```input 5\n6```", [("input", "5\n6")]),
        ("```input 5```\n```[1]```\n```True```", [("input", "5"), ("", "[1]"), ("", "True")]),
        ("```[1,\n2]\n```", [("", "[1,\n2]")]),
        ("```python\nx\n```input\n5\n```", [("input", "5")]),  # the first was never closed
        ("```python\nx", []),
        ("a ```input\n5\n```\n6", []),  # does not open at the beginning of a line, so the other has no end
        ("```python\nx = '```'\n```", [("python", "x = '```'")]),
        ("```input\n```", [("input", "")]),
        ("``````", [("", "")]),
        ("", []),
    ],
)
def test_fences(text: str, found: list[tuple[str, str]]) -> None:
    assert blocks.read(text) == found


@given(st.text("`\nab "))
def test_any_text_is_read(text: str) -> None:
    for name, body in blocks.read(text):
        assert name == name.lower() and body == body.rstrip()


def test_the_first_and_the_last_of_a_name() -> None:
    text = "\n".join(blocks.write(*block) for block in (("", "4"), ("input", "5"), ("input", "6"), ("", "7")))
    assert blocks.first(text, "input") == "5"
    assert blocks.first(text, "output") == blocks.first("", "input") == ""
    assert blocks.last(text, "input") == "6"
    assert blocks.last(blocks.write("output", "6"), "input") == ""
    assert blocks.given("nothing of the kind", "input") == ""
