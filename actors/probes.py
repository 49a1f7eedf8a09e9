"""Further inputs of a program, derived from one of them: of the same types, with other values.

An input is text of a model and is not evaluated here. It is taken apart at its commas and brackets, and what is
recognised in it (numbers, strings, truth values, and lists, tuples, sets, dicts and calls of such) is changed: all
arguments at once, and containers in length and order, too.

Invariants: any text is taken; no probe has the text of the input or of another probe; literals become literals. Not
guaranteed: that a probe differs in value, or that a program is defined on it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

_TOKEN = re.compile(
    r"""'{3}(?:\\.|[^\\])*?'{3}|"{3}(?:\\.|[^\\])*?"{3}|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|"""
    r"""\#[^\n]*|[^'"#,:()\[\]{}]+|.""",
    re.DOTALL,
)
_NAME = re.compile(r"[\w.]+")
_KEYWORD = re.compile(r"\w+\s*=(?!=)")
_CLOSERS = {"(": ")", "[": "]", "{": "}", "": ""}
_PREFIXES = frozenset(("r", "R", "u", "U"))
_EVERY_LETTER = "' The quick brown fox jumps over 13 LAZY dogs! '"
_LONGEST_NUMBER = 40  # characters; Python refuses to print some that are very long
_DEEPEST = 40  # brackets in each other, as values may be; round ones go deeper in legal text

Texts = Sequence[str]


@dataclass(frozen=True, slots=True)
class _Way:
    """`items` makes the elements of a container from its elements and the changed ones; `filling` is what an empty one
    gets."""

    number: Callable[[float], float]
    string: Callable[[str], str]
    items: Callable[[Texts, Texts], Texts]
    filling: str


_WAYS = (
    _Way(lambda n: n + 1, lambda s: f"{s} 'b'", lambda old, new: new, "1"),  # close by
    _Way(lambda n: type(n)(0 if n else -1), lambda s: "''", lambda old, new: new, "'a'"),  # zeros
    _Way(  # far off, where limits and thresholds show
        lambda n: 10 * n + (1001 if isinstance(n, int) else 1001.4375),
        lambda s: f"{s} {_EVERY_LETTER}",
        lambda old, new: (*new[::-1], *old),
        "2",
    ),
    _Way(lambda n: -n - 1, lambda s: f"{_EVERY_LETTER} {s}", lambda old, new: new[::-1], "-1.5"),  # the other way round
    _Way(lambda n: n + 3, lambda s: "'A'", lambda old, new: (), "3"),  # nothing in containers
    _Way(lambda n: 3 * n + 4, lambda s: f"{s} {s}", lambda old, new: (*old, *old), "4"),
    _Way(lambda n: n - 4, lambda s: "'5'", lambda old, new: new[:1], "None"),
)


@dataclass(slots=True)
class _Brackets:
    """Items between commas; an item has a side for each part between colons, two in a dict. `text` is all of it, evenly
    spaced."""

    opener: str  # empty around the whole input
    items: list[list[_Side]] = field(default_factory=lambda: [[[]]])
    text: str = ""


_Side = list[str | _Brackets]


def probes(given: str) -> Iterator[str]:
    """At most seven other argument lists for the program that takes `given`; none if nothing in it is recognised."""
    whole = _parse(given)
    arguments = [side for sides in whole.items for side in sides if _text(side)] if whole else []
    seen = {", ".join(_text(argument) for argument in arguments)}
    for way in _WAYS:
        text = ", ".join(_changed(argument, way) for argument in arguments)
        if text not in seen:
            seen.add(text)
            yield text


def _parse(text: str) -> _Brackets | None:
    """None if brackets are too deep or do not match. Comments are left out."""
    around = [_Brackets("")]
    for token in _TOKEN.findall(text):
        inner = around[-1]
        if token in ("(", "[", "{"):
            around.append(_Brackets(token))
        elif token in (")", "]", "}"):
            if token != _CLOSERS[inner.opener] or len(around) > _DEEPEST:
                return None
            body = ", ".join(": ".join(map(_text, sides)) for sides in inner.items)
            inner.text = inner.opener + body.rstrip() + token
            around.pop()
            around[-1].items[-1][-1].append(inner)
        elif token == ",":
            inner.items.append([[]])
        elif token == ":" and inner.opener == "{":
            inner.items[-1].append([])
        elif not token.startswith("#"):
            inner.items[-1][-1].append(token)
    return around[0] if len(around) == 1 else None


def _changed(side: _Side, way: _Way) -> str:
    match [part for part in side if not isinstance(part, str) or part.strip()]:
        case [_Brackets() as brackets]:
            return _bracketed(brackets, way)
        case [str() as name, _Brackets() as brackets] if _NAME.fullmatch(name.strip()):
            return name.strip() + _call(brackets, way)
        case [str() as name, *rest] if keyword := _KEYWORD.match(name.lstrip()):
            return keyword.group() + _changed([name.lstrip()[keyword.end() :], *rest], way)
        case [str() as text] if text.strip() in ("True", "False"):
            return str(text.strip() == "False")
        case [str() as text] if (number := _number(text.strip())) is not None:
            return repr(way.number(number))
        case parts if _is_string(parts):
            return way.string(_text(side))
    return _text(side)


def _bracketed(brackets: _Brackets, way: _Way) -> str:
    """A container, or an expression in round brackets."""
    items = [sides for sides in brackets.items if any(map(_text, sides))]
    if brackets.opener == "(" and len(brackets.items) == 1 and items:
        return _call(brackets, way)
    mapping = brackets.opener == "{" and (not items or len(items[0]) == 2)
    changed: Texts = [f"{way.filling}: 0" if mapping else way.filling]
    if items:
        old = [": ".join(map(_text, sides)) for sides in items]
        changed = way.items(old, [": ".join(_changed(side, way) for side in sides) for sides in items])
    if brackets.opener == "(" and len(changed) == 1:
        return f"({changed[0]},)"
    if brackets.opener == "{" and not changed and not mapping:
        return "set()"
    return brackets.opener + ", ".join(changed) + _CLOSERS[brackets.opener]


def _call(brackets: _Brackets, way: _Way) -> str:
    """As many items as before."""
    items = (": ".join(_changed(side, way) for side in sides) for sides in brackets.items)
    return brackets.opener + ", ".join(items) + _CLOSERS[brackets.opener]


def _is_string(parts: Sequence[str | _Brackets]) -> bool:
    """One string literal or several in a row."""
    texts = [part.strip() for part in parts if isinstance(part, str)]
    quoted = [text[0] in "'\"" for text in texts]
    return (
        len(texts) == len(parts)
        and any(quoted)
        and all(is_quoted or text in _PREFIXES for is_quoted, text in zip(quoted, texts, strict=True))
    )


def _number(text: str) -> float | None:
    if len(text) > _LONGEST_NUMBER:
        return None
    for read in (lambda: int(text, 0), lambda: float(text)):
        try:
            return read()
        except ValueError:
            pass
    return None


def _text(side: _Side) -> str:
    return "".join(part if isinstance(part, str) else part.text for part in side).strip()
