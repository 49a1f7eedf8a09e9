"""Does the new part of a composite f(g()) call what it was given, and leave its names alone?

Told by the syntax tree of that part, never by running it. A call counts wherever it stands in the definition of f, also
in a branch that is never taken or in a nested helper that nobody calls, as in the official check; of several
definitions the last counts, with what wraps it. A name counts as bound wherever it is, also as a local one, since a
call there would be of something else. Not guaranteed: that a component has any bearing on the result.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence

from executor.policy import ENTRY


class CompositionError(ValueError):
    """The text is no composite of what it was given."""


def check(tree: ast.Module, names: Sequence[str]) -> None:
    """CompositionError if one of `names` is bound anywhere, or not called in what defines the entry function."""
    given = set(names)
    for node in ast.walk(tree):
        for name in bound(node):
            if name in given:
                raise CompositionError(f"binds {name} again")
    called: set[str] = set()
    for statement in tree.body:
        if _defines_entry(statement):
            begun = set() if isinstance(statement, ast.FunctionDef) else called
            called = begun | {_called(node) for node in ast.walk(statement)}
    if missing := given - called:
        raise CompositionError(f"{ENTRY} never calls {min(missing)}")


def bound(node: ast.AST) -> Sequence[str | None]:
    """The names that this node by itself binds, deletes or declares as another scope's."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()):
            return (name,)
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | ast.arg(arg=name):
            return (name,)
        case ast.ExceptHandler(name=name) | ast.MatchAs(name=name) | ast.MatchStar(name=name):
            return (name,)
        case ast.MatchMapping(rest=name):
            return (name,)
        case ast.alias(name=name, asname=other):
            return (other or name.partition(".")[0],)
        case ast.Global(names=found) | ast.Nonlocal(names=found):
            return found
    return ()


def _defines_entry(statement: ast.stmt) -> bool:
    match statement:
        case (
            ast.FunctionDef(name=name)
            | ast.Assign(targets=[ast.Name(id=name)])
            | ast.AnnAssign(target=ast.Name(id=name))
        ):
            return name == ENTRY
    return False


def _called(node: ast.AST) -> str:
    """The name that is called, if this is a call of a name."""
    return node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
