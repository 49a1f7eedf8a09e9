"""What a program may import and name, and how large it may be: the checker's rules.

Hygiene, never security: the rules keep out what makes a task irreproducible (clocks, addresses, hashes, randomness)
or pointless (files, input). What a program can do to the machine is the business of executor/sandbox.py alone.

Names are judged where the compiled code really looks them up as globals or builtins, so a parameter called `input` or
an attribute called `open` is nobody's concern, and a name that the program binds itself is its own.

A program may use special attributes (`__class__.__name__`, `__dict__`, `__add__` …) except those that lead out of it,
into frames, code and the interpreter's own modules: with them it would describe the interpreter, not a computation.

The library's modules hold others, as ordinary names (`statistics.random`, `enum.sys`). None of these can be imported
from them. Those with clocks, randomness, the system or the interpreter cannot be had as attributes either; but a
program that itself assigns to an attribute of such a name, or defines it in a class, may use the name. What reads
attributes by computed names (`getattr`, `__dict__`) still gets there; of randomness it then finds what the runner has
seeded (executor/runner.py).

An input is held to more, because as an answer it is evaluated beside a program that it must not touch and whose output
the prompt has shown: it could claim that output instead of causing it. So it binds no name (`f := …`), makes no class
(whose `+` could return anything), reads no attribute that begins with an underscore or by a computed name, and uses
attributes or names of the program but not both (`TABLE.update(…)`, `re.enum.sys`). Format strings read any attribute,
but give text only. What remains is what the program itself hands out: the functions and classes that it names.
"""

from __future__ import annotations

import ast
import builtins
import dis
from collections.abc import Iterator, Sequence
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

# Ways out of a program: into frames, code objects and modules.
BANNED_ATTRIBUTES = frozenset(
    (
        "__builtins__", "__closure__", "__code__", "__globals__", "__loader__", "__self__", "__spec__",
        "__subclasses__", "__traceback__", "ag_await", "ag_code", "ag_frame", "cr_await", "cr_code", "cr_frame",
        "cr_origin", "f_back", "f_builtins", "f_code", "f_globals", "f_locals", "f_trace", "gi_code", "gi_frame",
        "gi_yieldfrom", "tb_frame", "tb_next",
    )
)  # fmt: skip

# Names by which the modules above, in Python 3.11 to 3.13, hold modules that are not among them.
HANDED_OUT = frozenset(
    (
        "_casefix", "_compiler", "_constants", "_parser", "_random", "_sre", "_string", "_sys", "_thread", "bltns",
        "builtins", "codecs", "contextlib", "copyreg", "decoder", "encoder", "inspect", "keyword", "random", "scanner",
        "sys", "warnings",
    )
)  # fmt: skip
# Of these, and of those that these hold in turn, the ones that make a task irreproducible.
LEADING_OUT = frozenset(("_random", "_sys", "_thread", "bltns", "builtins", "inspect", "os", "random", "sys"))

# In inputs: attributes by computed names, and classes.
_BANNED_IN_INPUTS = frozenset(("attrgetter", "delattr", "getattr", "methodcaller", "setattr", "type"))
_BUILTINS = frozenset(vars(builtins))

_BANNED = BANNED_NAMES | BANNED_ATTRIBUTES | HANDED_OUT | LEADING_OUT
_IMPORTS = frozenset(("IMPORT_NAME",))
_STORES = frozenset(("STORE_NAME", "STORE_GLOBAL"))
_LOADS = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"))
_ATTRIBUTES = frozenset(("LOAD_ATTR", "LOAD_METHOD", "LOAD_SUPER_ATTR", "STORE_ATTR", "DELETE_ATTR"))
_MEMBERS = frozenset(("IMPORT_FROM",))


class PolicyError(ValueError):
    """The program or input is legal Python that this system does not take."""


def check_size(source: str) -> None:
    if len(source.encode("utf-8", "surrogatepass")) > MAX_SOURCE:
        raise PolicyError(f"longer than {MAX_SOURCE} bytes")


def check_tree(tree: ast.AST) -> list[ast.AST]:
    """All nodes, those nearer to the root first. PolicyError if the tree is larger or deeper than recursive code should
    have to walk."""
    nodes, level = [tree], [tree]
    for _ in range(MAX_DEPTH - 1):
        level = _children(level)
        if not level:
            return nodes
        nodes += level
        if len(nodes) > MAX_NODES:
            raise PolicyError(f"more than {MAX_NODES} syntax nodes")
    if _children(level):
        raise PolicyError(f"nested more than {MAX_DEPTH} deep")
    return nodes


def _children(nodes: list[ast.AST]) -> list[ast.AST]:
    """As ast.iter_child_nodes of each, in a third of the time."""
    found: list[ast.AST] = []
    for node in nodes:
        for field in node._fields:
            value = getattr(node, field, None)
            if isinstance(value, list):
                found += [child for child in value if isinstance(child, ast.AST)]
            elif isinstance(value, ast.AST):
                found.append(value)
    return found


def check_program(code: CodeType) -> None:
    """PolicyError if a module's code imports or names what it may not, or never binds the entry function."""
    parts = list(_parts(code))
    own = {name for part in parts for _, name in _named(part, frozenset(("STORE_GLOBAL",)))}
    own |= {name for _, name in _named(code, _STORES)}
    if ENTRY not in own:
        raise PolicyError(f"defines no function {ENTRY}")
    for part in parts:
        for _, name in _named(part, _IMPORTS):
            if name not in MODULES:
                raise PolicyError(f"imports {name or 'a relative module'}")
        if not _BANNED.isdisjoint(part.co_names):
            mine = own | {name for _, name in _named(part, _STORES)}  # of a function they are locals, never looked up
            _refuse(part, _LOADS, BANNED_NAMES - mine)
            _refuse(part, _MEMBERS, BANNED_ATTRIBUTES | HANDED_OUT)
            _refuse(part, _ATTRIBUTES, BANNED_ATTRIBUTES | LEADING_OUT - _own_attributes(parts))


def _own_attributes(parts: Sequence[CodeType]) -> frozenset[str]:
    """Attributes that the program assigns to, or defines in a class; `parts`: the module's code first."""
    assigned = [name for part in parts for _, name in _named(part, frozenset(("STORE_ATTR",)))]
    return frozenset(assigned + [name for part in parts[1:] for _, name in _named(part, frozenset(("STORE_NAME",)))])


def _refuse(part: CodeType, operations: frozenset[str], names: frozenset[str]) -> None:
    if not names.isdisjoint(part.co_names):
        for _, name in _named(part, operations):
            if name in names:
                raise PolicyError(f"uses {name}")


def check_expression(code: CodeType) -> None:
    """PolicyError if an input's code could do more than compute arguments."""
    foreign, attribute = "", ""
    for part in _parts(code):
        for _, name in _named(part, _STORES):
            raise PolicyError(f"binds {name}")
        if set(part.co_names) <= {ARGUMENTS}:
            continue
        for operation, name in _named(part, _LOADS | _ATTRIBUTES):
            if name == ARGUMENTS:
                continue
            if operation in _ATTRIBUTES:
                refused = name.startswith("_") or name in BANNED_ATTRIBUTES
                attribute = name
            else:
                refused = name in BANNED_NAMES or name in _BANNED_IN_INPUTS or name.startswith("__")
                foreign = foreign if name in _BUILTINS else name
            if refused:
                raise PolicyError(f"uses {name}")
    if foreign and attribute:
        raise PolicyError(f"uses the program's {foreign} and the attribute {attribute}")


def _named(code: CodeType, operations: frozenset[str]) -> list[tuple[str, str]]:
    """(operation, name) where the code does one of these. Disassembly is dear, so it is done where it can find any."""
    numbers = {dis.opmap[operation] for operation in operations if operation in dis.opmap}
    if numbers.isdisjoint(code.co_code[::2]):
        return []
    return [(i.opname, i.argval) for i in dis.get_instructions(code) if i.opcode in numbers]


def _parts(code: CodeType) -> Iterator[CodeType]:
    """The code object and all those nested in its constants."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _parts(constant)
