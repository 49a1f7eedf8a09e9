"""Values as texts: the only form in which a result leaves a sandbox.

A value is None, bool, int, float, complex, str, bytes, list, tuple, dict, set or frozenset of exactly these types.
`canonical` writes it, `parse` reads the text of a literal without evaluating anything; executor/keys.py compares.

Invariant: canonical(parse(text)) is a fixed point of canonical ∘ parse.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable

MAX_DEPTH = 40  # of containers in each other


class NotAValue(ValueError):
    """The object or the text is outside the closed set of values."""


def canonical(value: object, depth: int = 0) -> str:
    """The text of `value`: its repr, with the elements of sets sorted by their own text.

    NotAValue for other types or more than MAX_DEPTH levels; ValueError for an int Python will not print.
    """
    kind = type(value)
    if value is None or kind in (str, int, bool, float, bytes, complex):
        return repr(value)
    if depth > MAX_DEPTH:
        raise NotAValue(f"nested more than {MAX_DEPTH} deep")
    depth += 1
    if isinstance(value, dict) and kind is dict:
        pairs = [canonical(k, depth) + ": " + canonical(v, depth) for k, v in value.items()]
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, (list, tuple)) and kind in (list, tuple):
        body = ", ".join([canonical(v, depth) for v in value])
        if kind is list:
            return "[" + body + "]"
        return "(" + body + ",)" if len(value) == 1 else "(" + body + ")"
    if isinstance(value, (set, frozenset)) and kind in (set, frozenset):
        if not value:
            return kind.__name__ + "()"
        body = "{" + ", ".join(sorted([canonical(v, depth) for v in value])) + "}"
        return body if kind is set else "frozenset(" + body + ")"
    raise NotAValue(kind.__name__)


def parse(text: str) -> object:
    """The value that `text` is a literal of. SyntaxError or NotAValue if it is none; nothing is called or looked up."""
    return literal(ast.parse(text.strip(), mode="eval").body)


def literal(node: ast.expr, depth: int = 0) -> object:
    """The value of a literal's syntax tree; NotAValue for any other expression or an unhashable element."""
    if depth > MAX_DEPTH + 4:  # the parts of a signed complex number count here, and not in `canonical`
        raise NotAValue(f"nested more than {MAX_DEPTH} deep")
    depth += 1
    match node:
        case ast.Constant(value=value) if value is not Ellipsis:
            return value
        case ast.List(elts=elements):
            return [literal(e, depth) for e in elements]
        case ast.Tuple(elts=elements):
            return tuple([literal(e, depth) for e in elements])
        case ast.Set(elts=elements):
            return set(_hashable(literal(e, depth) for e in elements))
        case ast.Dict(keys=keys, values=values) if None not in keys:
            names = _hashable(literal(k, depth) for k in keys if k is not None)
            return dict(zip(names, [literal(v, depth) for v in values], strict=True))
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            number = _number(operand, depth)
            if isinstance(sign, ast.UAdd):
                return number
            return 0 - number if isinstance(number, complex) else -number  # repr writes 0-2j, not -0-2j, as -2j
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as sign, right=right):
            real, imaginary = _number(left, depth), _number(right, depth)
            if type(real) is complex or type(imaginary) is not complex:
                raise NotAValue("arithmetic other than real + imaginary")
            try:
                return real + imaginary if isinstance(sign, ast.Add) else real - imaginary
            except OverflowError as error:
                raise NotAValue(str(error)) from error
        case ast.Name(id="nan" | "inf" as name):
            return float(name)  # a new one each time: a set tells two NaNs apart by identity
        case ast.Name(id="nanj" | "infj" as name):
            return complex(0, float(name[:-1]))
        case ast.Call(func=ast.Name(id="set" | "frozenset" as name), args=[], keywords=[]):
            return set() if name == "set" else frozenset()
        case ast.Call(func=ast.Name(id="frozenset"), args=[ast.Set() as elements], keywords=[]):
            return frozenset(_hashable(literal(e, depth) for e in elements.elts))
    raise NotAValue(type(node).__name__)


def _number(node: ast.expr, depth: int) -> int | float | complex:
    value = literal(node, depth)
    if isinstance(value, (int, float, complex)) and type(value) is not bool:
        return value
    raise NotAValue(f"sign before {type(value).__name__}")


def _hashable(elements: Iterable[object]) -> list[object]:
    found = list(elements)
    for element in found:
        try:
            hash(element)
        except TypeError as error:
            raise NotAValue(str(error)) from error
    return found
