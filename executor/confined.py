"""Which programs may share a child with others: those that provably reach nothing that outlives them.

A whitelist of syntax, names and attributes, read off the tree that is then compiled. Why a confined program cannot
change what the next one in its child sees:

1. *It can change only what it can reach.* It reaches objects by the names, attributes, calls, subscripts, iterations
   and operators listed here. What it makes itself (containers, iterators, functions, its namespace) dies with it. What
   was there before it is, by the lists, a built-in function, a type, a function of a stateless module, or a constant:
   nothing with items to store and nothing that advances. No attribute is ever stored or deleted, by syntax or by name
   (`setattr`, `functools.wraps`), so none of these changes.
2. *It gets no further.* Frames, code, globals, classes of objects and modules hang on names that begin with two
   underscores or are not listed, and what reads attributes by computed names (`getattr`, `operator.attrgetter`,
   `str.format` but of a literal without such fields) is not listed either. A module is no value: it occurs only before
   a dot, with a listed member behind. An imported name has one meaning in the whole program and is no built-in's.
   `type` and `super` are missing, and nothing listed returns a class that it was not given, so there are no classes of
   its own, whose special methods library code would call. `Counter` is a class in Python, whose methods take any object
   for self: it is only called, and named in annotations. There its name, and those of `typing`, meet nothing that is
   the program's own and could keep them: not even a built-in's name, if the program binds it anywhere.
3. *None of it runs later.* Without classes there are no finalisers. A generator that is dropped runs nothing, for there
   is no `finally`, `with` or `except` that could meet GeneratorExit. What an `except` names is looked up, whatever it
   meets, so it is a built-in exception, by a name that the program nowhere binds.
4. *It does not notice what others used up.* No handler meets MemoryError, so an address space that others have filled
   ends the child, and the program is run again alone; so does CPU time. Recursion depth starts anew for each, and no
   handler tells where it ended.

Caches inside the interpreter (methods, codecs, typing's, abstract classes') are shared and answer alike whoever asks,
a few calls deeper or not. Names of `typing` occur in annotations only, where its objects are made and never looked at.
`re` is not listed: its cache takes True, 1 and 1.0 for one flag, so that an error can become a match. `decimal` has a
context; `enum` and `dataclasses` make classes.

An input is confined if it names nothing but built-ins, and no attributes: what a program has bound these names to is
the program's own, by 2.

Not covered: CPU time and memory (see 4), bugs of the interpreter, whether a recursion that comes within a few calls of
its limit fails in one of those caches, and addresses, which show in the text of a function and in the order of a set of
functions, and are no more repeatable for a program alone. Nothing here keeps anything from the machine: that is the
sandbox's business, as ever.
"""

from __future__ import annotations

import ast
import builtins
import collections
import math
import string
from collections.abc import Iterable, Sequence

CAUGHT = frozenset(  # what a handler may name: no ancestor of MemoryError, GeneratorExit or RecursionError
    (
        "ArithmeticError", "AssertionError", "AttributeError", "IndexError", "KeyError", "LookupError", "NameError",
        "NotImplementedError", "OverflowError", "StopIteration", "TypeError", "UnboundLocalError", "UnicodeDecodeError",
        "UnicodeEncodeError", "UnicodeError", "ValueError", "ZeroDivisionError",
    )
)  # fmt: skip
BUILTINS = frozenset(
    (
        "abs", "all", "any", "ascii", "bin", "bool", "bytes", "callable", "chr", "complex", "dict",
        "divmod", "enumerate", "filter", "float", "frozenset", "hex", "int", "isinstance", "issubclass", "iter",
        "len", "list", "map", "max", "min", "next", "oct", "ord", "pow", "range", "repr", "reversed", "round", "set",
        "slice", "sorted", "str", "sum", "tuple", "zip", "Ellipsis", "NotImplemented", "RecursionError", "RuntimeError",
        *CAUGHT,
    )
)  # fmt: skip
MEMBERS = {
    "bisect": frozenset(("bisect", "bisect_left", "bisect_right", "insort", "insort_left", "insort_right")),
    "collections": frozenset(("Counter", "OrderedDict", "defaultdict", "deque")),
    "functools": frozenset(("cache", "cmp_to_key", "lru_cache", "reduce")),
    "heapq": frozenset(
        ("heapify", "heappop", "heappush", "heappushpop", "heapreplace", "merge", "nlargest", "nsmallest")
    ),
    "itertools": frozenset(
        (
            "accumulate", "chain", "combinations", "combinations_with_replacement", "compress", "count", "cycle",
            "dropwhile", "filterfalse", "groupby", "islice", "pairwise", "permutations", "product", "repeat",
            "starmap", "takewhile", "tee", "zip_longest",
        )
    ),
    "math": frozenset(name for name in dir(math) if not name.startswith("_")),
    "operator": frozenset(
        (
            "add", "and_", "eq", "floordiv", "ge", "gt", "itemgetter", "le", "lt", "mod", "mul", "ne", "neg", "not_",
            "or_", "pow", "sub", "truediv", "xor",
        )
    ),
    "string": frozenset(name for name, value in vars(string).items() if type(value) is str and name[0] != "_"),
    "typing": frozenset(
        (
            "Any", "Callable", "Counter", "DefaultDict", "Deque", "Dict", "FrozenSet", "Generator", "Iterable",
            "Iterator", "List", "Mapping", "Optional", "Sequence", "Set", "Tuple", "Union",
        )
    ),
}  # fmt: skip
ATTRIBUTES = frozenset(
    name
    for kind in (
        bool, int, float, complex, str, bytes, list, tuple, range, dict, set, frozenset,
        collections.deque, collections.defaultdict, collections.OrderedDict, collections.Counter,
    )
    for name in dir(kind)
    if not name.startswith("_")
) - {"format", "format_map"} | {"from_iterable"}  # fmt: skip
_CALLED_ONLY = ("collections", "Counter")

_INPUT: frozenset[type[ast.AST]] = frozenset(
    (
        ast.Expression, ast.BoolOp, ast.BinOp, ast.UnaryOp, ast.IfExp, ast.Dict, ast.Set, ast.Compare, ast.Call,
        ast.FormattedValue, ast.JoinedStr, ast.Constant, ast.Subscript, ast.Starred, ast.Name, ast.List, ast.Tuple,
        ast.Slice, ast.keyword, ast.Load, *ast.boolop.__subclasses__(), *ast.operator.__subclasses__(),
        *ast.unaryop.__subclasses__(), *ast.cmpop.__subclasses__(),
    )
)  # fmt: skip
_ANYWHERE = _INPUT - {ast.Expression, ast.Name} | {
    ast.Module, ast.Return, ast.Delete, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.For, ast.While, ast.If, ast.Raise,
    ast.Assert, ast.Expr, ast.Pass, ast.Break, ast.Continue, ast.NamedExpr, ast.Lambda, ast.ListComp, ast.SetComp,
    ast.DictComp, ast.GeneratorExp, ast.arguments, ast.Yield, ast.YieldFrom, ast.Store, ast.Del,
}  # fmt: skip
_HINT: frozenset[type[ast.AST]] = frozenset(
    (ast.Name, ast.Attribute, ast.Subscript, ast.Tuple, ast.List, ast.Constant, ast.BinOp, ast.BitOr, ast.Load)
)
_TELLING = frozenset(
    (
        ast.Call, ast.Attribute, ast.arg, ast.AnnAssign, ast.FunctionDef, ast.ExceptHandler, ast.Import,
        ast.ImportFrom,
    )
)  # fmt: skip
_EVERY_BUILTIN = frozenset(vars(builtins))


def expression(nodes: Iterable[ast.AST]) -> bool:
    """Whether an input is confined; `nodes`: all of its tree."""
    return all(type(node) in _INPUT and (not isinstance(node, ast.Name) or node.id in BUILTINS) for node in nodes)


def program(nodes: Sequence[ast.AST]) -> bool:
    """Whether a program is confined; `nodes`: all of its tree."""
    stored = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    scope = _Scope([node for node in nodes if type(node) in _TELLING], stored)
    return scope.sound and all([scope.allows(node) for node in nodes if type(node) not in _ANYWHERE])


class _Scope:
    """What the names of one program stand for, whatever the scope: a name that is imported anywhere counts as imported
    everywhere and is bound in no other way, one that is bound anywhere is no built-in's where that matters."""

    def __init__(self, nodes: Sequence[ast.AST], stored: Iterable[str]) -> None:
        """`nodes`: those of the types in _TELLING. `stored`: names that are assigned to or deleted."""
        self._imported: dict[str, tuple[str, str]] = {}  # module and member, empty for the module itself
        ambiguous: set[str] = set()
        bound = set(stored)  # in any way but by an import
        called: list[ast.AST] = []
        dotted: list[ast.AST] = []
        hints: list[ast.AST] = []
        caught: list[ast.AST] = []
        for node in nodes:
            match node:
                case ast.Call(func=func):
                    called.append(func)
                case ast.Attribute(value=ast.Name() as base):
                    dotted.append(base)
                case ast.arg(arg=name, annotation=hint) | ast.FunctionDef(name=name, returns=hint):
                    bound.add(name)
                    hints += ast.walk(hint) if hint else ()
                case ast.AnnAssign(annotation=hint):
                    hints += ast.walk(hint)
                case ast.ExceptHandler(type=ast.AST() as kind, name=name):
                    bound.add(name or "")
                    caught += kind.elts if isinstance(kind, ast.Tuple) else [kind]
                case ast.Import(names=names):
                    ambiguous |= self._bind({alias.asname or alias.name: (alias.name, "") for alias in names})
                case ast.ImportFrom(module=str() as module, names=names):
                    ambiguous |= self._bind({alias.asname or alias.name: (module, alias.name) for alias in names})
        self._called, self._dotted, self._hints = [frozenset(map(id, found)) for found in (called, dotted, hints)]
        self.sound = (
            not ambiguous
            and bound.isdisjoint(self._imported)
            and all([type(hint) in _HINT and getattr(hint, "id", "") not in bound for hint in hints])
            and all([isinstance(kind, ast.Name) and kind.id in CAUGHT - bound for kind in caught])
        )

    def _bind(self, names: dict[str, tuple[str, str]]) -> set[str]:
        """Those that already stand for something else."""
        return {name for name, meaning in names.items() if self._imported.setdefault(name, meaning) != meaning}

    def allows(self, node: ast.AST) -> bool:
        """Of a node whose type is not in _ANYWHERE."""
        hint = id(node) in self._hints
        match node:
            case ast.Name(id=name) if name in self._imported:
                return self._member(node, *self._imported[name])
            case ast.Name(id=name):
                return name in BUILTINS or (_is_own(name) and not hint)
            case ast.Attribute(value=ast.Name(id=name), attr=attribute, ctx=ast.Load()) if name in self._imported:
                module, member = self._imported[name]
                return self._member(node, module, attribute) if not member else attribute in ATTRIBUTES and not hint
            case ast.Attribute(value=ast.Constant(value=str(text)), attr="format", ctx=ast.Load()):
                return _reads_no_attributes(text) and not hint
            case ast.Attribute(attr=attribute, ctx=ast.Load()):
                return attribute in ATTRIBUTES and not hint
            case ast.FunctionDef(name=name) | ast.arg(arg=name):
                return name in BUILTINS or _is_own(name)
            case ast.Try(finalbody=[]) | ast.comprehension(is_async=0):
                return True
            case ast.ExceptHandler(type=ast.AST(), name=name):
                return name is None or name in BUILTINS or _is_own(name)
            case ast.Nonlocal(names=names):
                return all([name in BUILTINS or _is_own(name) for name in names])
            case ast.alias(name=name, asname=other):
                return _is_own(other or name)
            case ast.Import(names=names):
                return all([alias.name in MEMBERS for alias in names])
            case ast.ImportFrom(module=str() as module, names=names, level=0):
                return all([alias.name in MEMBERS.get(module, ()) for alias in names])
        return False

    def _member(self, node: ast.AST, module: str, name: str) -> bool:
        """Whether a module, before a dot, or a member of one may be where it is."""
        if not name:
            return id(node) in self._dotted
        if name not in MEMBERS.get(module, ()):
            return False
        if id(node) in self._hints:
            return True
        return module != "typing" and ((module, name) != _CALLED_ONLY or id(node) in self._called)


def _reads_no_attributes(template: str) -> bool:
    """Whether a format string only writes its arguments; others reach into them (`{0.imag}`, `{0[a]}`)."""
    try:
        fields = list(string.Formatter().parse(template))
    except ValueError:
        return False
    return not any([set(field or "") & set(".[") or "{" in (spec or "") for _, field, spec, _ in fields])


def _is_own(name: str) -> bool:
    """Whether a name can only be the program's: no built-in's and not reserved."""
    return not name.startswith("__") and name not in _EVERY_BUILTIN
