"""What a program may import and name, and how large it may be: the checker's rules.

Hygiene, never security: the rules keep out what makes a task irreproducible (clocks, addresses, hashes, randomness)
or pointless (files, input). What a program can do to the machine is the business of executor/sandbox.py alone.

Names are judged where the compiled code really looks them up as globals or builtins, so a parameter called `input` or
an attribute called `open` is nobody's concern, and a name that the program binds itself is its own.
"""

from __future__ import annotations

import ast
import dis
from collections.abc import Iterator
from types import CodeType

ENTRY = "f"  # the function a program must define
ARGUMENTS = "__arguments__"  # takes its place in a compiled input, and hands the arguments out
MAX_SOURCE = 16384  # bytes
MAX_NODES = 5000  # of the syntax tree
MAX_DEPTH = 60

# Without clocks and calendars (today changes), random, and whatever reaches the system.
MODULES = frozenset(
    (
        "abc", "array", "bisect", "cmath", "collections", "collections.abc", "copy", "dataclasses",
        "decimal", "enum", "fractions", "functools", "heapq", "itertools", "json", "math", "numbers",
        "operator", "re", "statistics", "string", "textwrap", "types", "typing", "unicodedata",
    )
)  # fmt: skip

BANNED_NAMES = frozenset(
    (
        "__builtins__", "__import__", "__loader__", "__spec__", "breakpoint", "compile", "eval", "exec",
        "exit", "globals", "hash", "help", "id", "input", "locals", "open", "quit", "vars",
    )
)  # fmt: skip

_LOADS = frozenset(
    ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_CLASSDEREF", "LOAD_FROM_DICT_OR_GLOBALS", "LOAD_FROM_DICT_OR_DEREF")
)


class PolicyError(ValueError):
    """The program or input is legal Python that this system does not take."""


def check_size(source: str) -> None:
    if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE:
        raise PolicyError(f"longer than {MAX_SOURCE} bytes")


def check_tree(tree: ast.AST) -> None:
    """PolicyError if the tree is larger or deeper than recursive code should have to walk."""
    count, level = 0, [tree]
    for _ in range(MAX_DEPTH):
        count += len(level)
        if count > MAX_NODES:
            raise PolicyError(f"more than {MAX_NODES} syntax nodes")
        level = [child for node in level for child in ast.iter_child_nodes(node)]
        if not level:
            return
    raise PolicyError(f"nested more than {MAX_DEPTH} deep")


def check_program(code: CodeType) -> None:
    """PolicyError if a module's code imports or names what it may not, or never binds the entry function."""
    own = {i.argval for part in _parts(code) for i in dis.get_instructions(part) if i.opname == "STORE_GLOBAL"}
    own |= _stored(code)
    _check_names(code, own)
    if ENTRY not in own:
        raise PolicyError(f"defines no function {ENTRY}")


def check_expression(code: CodeType) -> None:
    """PolicyError if an input's code names what it may not."""
    _check_names(code, set())


def _check_names(code: CodeType, own: set[str]) -> None:
    for part in _parts(code):
        mine = own | _stored(part)
        for instruction in dis.get_instructions(part):
            name = instruction.argval
            if instruction.opname == "IMPORT_NAME":
                if name not in MODULES:
                    raise PolicyError(f"imports {name or 'a relative module'}")
            elif instruction.opname in _LOADS and name in BANNED_NAMES and name not in mine:
                raise PolicyError(f"uses {name}")


def _stored(code: CodeType) -> set[str]:
    """Names that this scope binds; of a function scope they are locals and never looked up by name."""
    return {i.argval for i in dis.get_instructions(code) if i.opname == "STORE_NAME"}


def _parts(code: CodeType) -> Iterator[CodeType]:
    """The code object and all those nested in its constants."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
