"""Types of literals, read off their text: nothing is evaluated."""

from __future__ import annotations

import ast

MAX_CHARACTERS = 16384
OTHER = "other"  # an expression that is no literal, or a text that cannot be read

_DISPLAYS: dict[type[ast.expr], str] = {
    ast.List: "list",
    ast.Tuple: "tuple",
    ast.Dict: "dict",
    ast.Set: "set",
    ast.JoinedStr: "str",
}


def argument_types(text: str) -> tuple[str, ...]:
    """Names of the types of an argument list ("1, [2]" has int and list); ("other",) if it is none."""
    if len(text) > MAX_CHARACTERS:
        return (OTHER,)
    try:
        call = ast.parse(f"f({text}\n)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return (OTHER,)
    if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
        return (OTHER,)
    return tuple(_type(value) for value in (*call.args, *(keyword.value for keyword in call.keywords)))


def _type(node: ast.expr) -> str:
    match node:
        case ast.Constant(value=value):
            return type(value).__name__
        case ast.UnaryOp(op=ast.UAdd() | ast.USub(), operand=operand):
            return _type(operand)
        case ast.BinOp(op=ast.Add() | ast.Sub(), right=ast.Constant(value=complex())):
            return "complex"
        case ast.Call(func=ast.Name(id="set" | "frozenset" as name)):
            return name
    return _DISPLAYS.get(type(node), OTHER)
