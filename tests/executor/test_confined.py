"""Which programs may share a child: the ways out that are known do not pass, and what the lists name leads nowhere."""

from __future__ import annotations

import ast
import builtins
import collections
import functools
import heapq
import importlib
import itertools
import json
import types
from pathlib import Path

import pytest

from executor import confined, policy


def is_confined(text: str) -> bool:
    return confined.program(policy.check_tree(ast.parse(text)))


ESCAPES = {
    # attributes that lead into the interpreter
    "class of a value": "def f(x): return x.__class__",
    "class in a format": "def f(x): return f'{x.__class__}'",
    "class in a nested format": "def f(x): return f'{1:{x.__class__}}'",
    "subclasses": "def f(x): return ().__class__.__base__.__subclasses__()",
    "globals of a function": "def f(x): return f.__globals__",
    "code of a function": "def f(x):\n    f.__code__ = (lambda x: 1).__code__",
    "defaults of a function": "def f(x, y=[]): return f.__defaults__",
    "self of a built-in": "def f(x): return len.__self__",
    "closure": "def f(x):\n    g = lambda: x\n    return g.__closure__",
    "dictionary of a type": "def f(x): return int.__dict__",
    "special method": "def f(x): return [].__setattr__",
    "frame of a generator": "def f(x):\n    g = (y for y in x)\n    return g.gi_frame.f_back",
    "generator in a generator": "def f(x): return [g.gi_code for g in [(y for y in x)]]",
    "throwing into a generator": "def f(x):\n    g = (y for y in x)\n    g.throw(ValueError)",
    "closing a generator": "def f(x):\n    g = (y for y in x)\n    g.close()",
    "traceback": "def f(x):\n    try: 1 / 0\n    except ZeroDivisionError as e: return e.__traceback__.tb_frame",
    "traceback by method": "def f(x):\n    try: 1 / 0\n    except ZeroDivisionError as e: e.with_traceback(None)",
    "object of an error": "def f(x):\n    try: x.copy\n    except AttributeError as e: return e.obj",
    "cause": "def f(x):\n    try: 1 / 0\n    except ZeroDivisionError as e: return e.__context__",
    "wrapped": "from functools import cache\n@cache\ndef g(): pass\ndef f(x): return g.__wrapped__",
    "metaclass order": "def f(x): return ValueError.mro()",
    # attributes by computed names
    "getattr": "def f(x): return getattr(x, 'a')",
    "getattr as a value": "def f(x): return list(map(getattr, x, ['a']))",
    "getattr as a default": "def f(x, g=getattr): return g(x, 'a')",
    "getattr as a lambda's default": "f = lambda x, g=getattr: g(x, 'a')",
    "getattr as a decorator": "@getattr\ndef f(x): pass",
    "getattr in an annotation": "def f(x: getattr(int, 'a')): pass",
    "hasattr": "def f(x): return hasattr(x, 'a')",
    "reduce(setattr)": "from functools import reduce\nimport math\ndef f(x): return reduce(setattr, x)",
    "setattr": "import math\ndef f(x): setattr(math, 'pi', 3)",
    "delattr": "import math\ndef f(x): delattr(math, 'pi')",
    "attrgetter": "from operator import attrgetter\ndef f(x): return attrgetter('__class__')(x)",
    "attrgetter by module": "import operator\ndef f(x): return operator.attrgetter('__class__')(x)",
    "methodcaller": "from operator import methodcaller\ndef f(x): return methodcaller('clear')(x)",
    "format": "def f(x): return '{0.__class__}'.format(x)",
    "format by index": "def f(x): return '{0[a]}'.format(x)",
    "format in a format": "def f(x): return '{0:{0.__class__}}'.format(x)",
    "format of a variable": "def f(x):\n    s = '{0.__class__}'\n    return s.format(x)",
    "format of a sum": "def f(x): return ('{0.__cl' + 'ass__}').format(x)",
    "format of an f-string": "def f(x): return f'{{0.{x}}}'.format(x)",
    "format unbound": "def f(x): return str.format('{0.__class__}', x)",
    "format as a value": "def f(x): return list(map(str.format, x))",
    "format_map": "def f(x): return '{a.__class__}'.format_map(x)",
    "format as a built-in": "def f(x): return format(x, 'd')",
    "match on attributes": "def f(x):\n    match x:\n        case int(real=y): return y",
    "match on a class": "def f(x):\n    match x:\n        case list(): return 1",
    "match on values": "def f(x):\n    match x:\n        case [y, *_]: return y",
    # names
    "builtins": "def f(x): return __builtins__",
    "builtins stored": "def f(x): pass\n__builtins__ = {}",
    "builtins as a parameter": "def f(x, __builtins__=1): pass",
    "builtins in a walrus": "def f(x): return (__builtins__ := x)",
    "builtins in a comprehension": "def f(x): return [0 for __builtins__ in x]",
    "builtins as a handler's name": "def f(x):\n    try: pass\n    except ValueError as __builtins__: pass",
    "builtins as a function": "def __builtins__(): pass\ndef f(x): pass",
    "builtins by import": "import math as __builtins__\ndef f(x): pass",
    "builtins nonlocal": "def f(x):\n    __a = 1\n    def g():\n        nonlocal __a\n        __a = 2",
    "module's name": "def f(x): return __name__",
    "import": "def f(x): return __import__('os')",
    "eval": "def f(x): return eval('x')",
    "exec": "def f(x): exec('x')",
    "compile": "def f(x): return compile('x', '', 'eval')",
    "open": "def f(x): return open('x')",
    "print": "def f(x): print(x)",
    "type": "def f(x): return type(x)",
    "type of three": "def f(x): return type('A', (), {})()",
    "type in a walrus": "def f(x): return (t := type)(x)",
    "a parameter named type": "def f(type): return 1",
    "object": "def f(x): return object()",
    "super": "def f(x): return super()",
    "property": "def f(x): return property(x)",
    "classmethod": "def f(x): return classmethod(x)",
    "vars": "def f(x): return vars()",
    "globals": "def f(x): return globals()",
    "locals": "def f(x): return locals()",
    "dir": "def f(x): return dir(x)",
    "id": "def f(x): return id(x)",
    "hash": "def f(x): return hash(x)",
    "memoryview": "def f(x): return memoryview(x)",
    "global": "y = 0\ndef f(x):\n    global y\n    y = x",
    # classes and other syntax
    "class": "class A: pass\ndef f(x): return A()",
    "class body": "def f(x):\n    class A:\n        y = x\n    return 1",
    "metaclass": "class A(metaclass=lambda *a: 1): pass\ndef f(x): return A",
    "finaliser": "class A:\n    def __del__(self): pass\ndef f(x): return 1",
    "async function": "async def f(x): return x",
    "asynchronous generator": "def f(x):\n    y = (z async for z in x)\n    return 1",
    "async comprehension": "async def g(x): return [y async for y in x]\ndef f(x): return 1",
    "with": "def f(x):\n    with x: pass",
    "finally": "def f(x):\n    try: return [0] * x\n    finally: return 0",
    "finally in a generator": "def f(x):\n    try: yield\n    finally: x.append(1)",
    "bare except": "def f(x):\n    try: return [0] * x\n    except: return 0",
    "except Exception": "def f(x):\n    try: return [0] * x\n    except Exception: return 0",
    "except BaseException": "def f(x):\n    try: yield\n    except BaseException: return 0",
    "except MemoryError": "def f(x):\n    try: return [0] * x\n    except MemoryError: return 0",
    "except GeneratorExit": "def f(x):\n    try: yield\n    except GeneratorExit: return 0",
    "except in a tuple": "def f(x):\n    try: return [0] * x\n    except (ValueError, Exception): return 0",
    "except by another name": "E = Exception\ndef f(x):\n    try: return [0] * x\n    except E: return 0",
    "except by a built-in's name": (
        "def f(x):\n    try:\n        try: return [0] * x\n        except ValueError: pass\n"
        "        ValueError = 1\n    except NameError: return 0"
    ),
    "except by a parameter's name": "def f(x, KeyError=1):\n    try: return [0] * x\n    except KeyError: return 0",
    "except what is none": (
        "def f(x):\n    try:\n        try: return [0] * x\n        except 5: pass\n    except TypeError: return 0"
    ),
    "except what is none in a tuple": "def f(x):\n    try: return [0] * x\n    except (ValueError, 5): pass",
    "except by a call": (
        "T = []\ndef g():\n    try: yield 1\n    except T.append(1): pass\ndef f(x):\n    next(g())\n    return T"
    ),
    "except by a lambda": "def f(x):\n    try: return [0] * x\n    except (lambda: x.clear() or ())(): pass",
    # how deep a call may go depends by a few calls on caches
    "except RecursionError": "def f(x):\n    try: return f(x)\n    except RecursionError: return 0",
    "except RuntimeError": "def f(x):\n    try: return f(x)\n    except (ValueError, RuntimeError): return 0",
    "except star": "def f(x):\n    try: return [0] * x\n    except* ValueError: pass",
    "attribute store": "def f(x): x.a = 1",
    "attribute store to a function": "def f(x): f.n = 1",
    "attribute store in a tuple": "def f(x): x.a, y = 1, 2",
    "attribute store in a for": "def f(x):\n    for x.a in x: pass",
    "attribute store in a comprehension": "def f(x): return [0 for x.a in x]",
    "attribute store with an annotation": "def f(x): x.a: int = 1",
    "augmented attribute": "def f(x): x.a += 1",
    "attribute deleted": "def f(x): del x.a",
    # modules
    "module store": "import math\ndef f(x): math.pi = 3",
    "module store with a listed name": "import math\ndef f(x): math.sqrt += 1",
    "module member deleted": "import math\ndef f(x): del math.pi",
    "module as a value": "import math\ndef f(x): return math",
    "module as an argument": "import collections\ndef f(x): return [collections][0].abc",
    "module renamed by assignment": "import itertools\nm = itertools\ndef f(x): return m.copy",
    "module in a default": "import math\ndef f(x, m=math): return m.pi",
    "module by a walrus": "import math\ndef f(x): return (m := math).pi",
    "module in a subscript": "import math\ndef f(x): math[0] = 1",
    "member that is not listed": "import functools\ndef f(x): return functools.wraps(x)",
    "member of a member": "import string\ndef f(x): return string.Formatter().vformat(x)",
    "module behind a module": "import collections\ndef f(x): return collections.abc.Mapping",
    "a module's own imports": "import functools\ndef f(x): return functools.GenericAlias",
    "submodule": "import collections.abc\ndef f(x): return 1",
    "star": "from math import *\ndef f(x): return sqrt(x)",
    "relative import": "from . import math\ndef f(x): return 1",
    "wraps": "from functools import wraps\nfrom heapq import merge\ndef f(x): return wraps(f)(merge)",
    "update_wrapper": "from functools import update_wrapper\nimport heapq\ndef f(x): update_wrapper(heapq.merge, f)",
    "singledispatch": "from functools import singledispatch\n@singledispatch\ndef f(x): return x",
    "total_ordering": "from functools import total_ordering\n@total_ordering\ndef f(x): return x",
    "partial": "from functools import partial\ndef f(x): return partial(f).func",
    "namedtuple": "from collections import namedtuple\ndef f(x): return namedtuple('A', 'copy')",
    "ChainMap": "from collections import ChainMap\ndef f(x): return ChainMap(x).maps",
    "copy": "import copy\ndef f(x): return copy.copy(x)",
    "re": "import re\ndef f(x): return re.sub('a', 'b', x)",
    "decimal": "from decimal import getcontext\ndef f(x): getcontext().prec = 3",
    "enum": "from enum import Enum\ndef f(x): return Enum('A', 'b')",
    "dataclasses": "from dataclasses import make_dataclass\ndef f(x): return make_dataclass('A', [])",
    "types": "import types\ndef f(x): return types.FunctionType",
    "json": "import json\ndef f(x): return json.dumps(x)",
    "typing as a value": "from typing import List\ndef f(x): return List[int]",
    "typing's classes": "from typing import NamedTuple\ndef f(x): return 1",
    "typing's attributes": "import typing\ndef f(x): return typing.List.copy",
    "typing that calls": "from typing import get_type_hints\ndef f(x): return get_type_hints(f)",
    "typing by a default": "from typing import List\ndef f(x, y=List): return y",
    "call in an annotation": "def f(x: print('a')): return x",
    "walrus in an annotation": "from typing import Counter\ndef f(x: (c := Counter)): return c.copy",
    "lambda in an annotation": "from typing import Counter\ndef f(x: (lambda: Counter)): return 1",
    "attribute in an annotation": "def f(x: int.real): return 1",
    "own name in an annotation": "y = 1\ndef f(x: y): return 1",
    # where an own mapping would keep what an annotation names
    "own mapping in an annotation": (
        "from collections import Counter, defaultdict\nlist = defaultdict(int)\ndef g(x: list[Counter]): pass\n"
        "def f(x): return [c.copy(int) for c in list]"
    ),
    "own mapping in an annotated return": (
        "from collections import Counter, defaultdict\ndef f(x, set=defaultdict(int)):\n"
        "    def g() -> set[Counter]: pass\n    return [c.copy(int) for c in set]"
    ),
    "own mapping in an annotated variable": (
        "from collections import defaultdict\nimport typing\n(tuple := defaultdict(int))\n"
        "x: tuple[typing.Counter] = 1\ndef f(x): return [c.copy(int) for c in tuple]"
    ),
    "own mapping by an imported name": (
        "from collections import Counter, defaultdict, deque\ndef g(deque):\n    def h(x: deque[Counter]): pass\n"
        "def f(x):\n    y = defaultdict(int)\n    g(y)\n    return [c.copy(int) for c in y]"
    ),
    "own mapping assigned to an imported name": (
        "from collections import Counter, defaultdict, deque\ndeque = defaultdict(int)\n"
        "def f(x: deque[Counter]): return [c.copy(int) for c in deque]"
    ),
    "own function by an imported name": "from typing import List\ndef List(): pass\ndef f(x: List[1]): return 1",
    "own error by an imported name": (
        "import math\ndef f(x):\n    try: return 1 / x\n    except ZeroDivisionError as math: return math.e"
    ),
    "own module": "import math\ndef f(math): return math.e",
    # letters that are others to the parser
    "eval in wide letters": "def f(x): return \uff45val('x')",
    "class in wide letters": "def f(x): return x.__\uff43lass__",
    "module's member in wide letters": "import functools\ndef f(x): return functools.\uff57raps(x)",
    "exception in wide letters": "def f(x):\n    try: return [0] * x\n    except \uff25xception: return 0",
    # a class in Python, whose methods take anything for self: Counter.copy(int) is type
    "method of Counter": "from collections import Counter\ndef f(x): return Counter.copy(int)",
    "method of a module's Counter": "import collections\ndef f(x): return collections.Counter.copy(int)",
    "Counter as a value": "from collections import Counter\nc = Counter\ndef f(x): return c.copy(int)",
    "Counter as an argument": "from collections import Counter\ndef f(x): return (lambda c: c.copy(int))(Counter)",
    "Counter as an alias": "from collections import Counter\ndef f(x): return Counter[int].copy(int)",
    "Counter in a union": "from collections import Counter\ndef f(x): return Counter | int",
    "Counter as a decorator": "from collections import Counter\n@Counter\ndef f(x): pass",
    "Counter in a cache": "from collections import Counter\nimport functools\ndef f(x): functools.cache(Counter)",
    "Counter in a comprehension": "from collections import Counter\ndef f(x): return [c.copy(int) for c in [Counter]]",
    "Counter deleted": "from collections import Counter\ndef f(x): pass\ndel Counter",
    "Counter by two names": (
        "from collections import Counter as c\ndef g():\n    from itertools import count as c\n"
        "def f(x): return c.copy(int)"
    ),
    "a module by two names": (
        "import collections as m\ndef g():\n    import itertools as m\ndef f(x): return m.count.copy(int)"
    ),
    "Counter as a built-in": "from collections import Counter as len\ndef f(x): return x",
    "module as a built-in": "import math as max\ndef f(x): return x",
    "typing as a built-in": "from typing import Counter as list\ndef f(x): return x.copy(int)",
}  # fmt: skip

ORDINARY = {
    "arithmetic": "def f(x, y=2, *z, w=3, **v):\n    return -x ** y // 7 + (w if z else len(v))",
    "loops": "def f(x):\n    n = 0\n    while n < 9:\n        n += 1\n        if n == 5: break\n    else: pass",
    "for": "def f(x):\n    for i, (a, *b) in enumerate(x):\n        if not a: continue\n    return [*x]",
    "strings": "def f(x): return '-'.join(sorted(x.split())).upper()[::-1] + f'{x!r:>{len(x)}}' + '%s' % x",
    "format": "def f(x): return '{} {a:>3} {{}}'.format(x, a=1) + ''.join(map('{:d}'.format, [1]))",
    "lists": "def f(x):\n    x.append(1)\n    x.sort(key=lambda y: -y, reverse=True)\n    del x[0]\n    x[1:2] = [3]",
    "dicts": "def f(x):\n    d = dict.fromkeys(x, 0)\n    d['a'] = d.get('a', 0) + 1\n    return {**d, 'b': d.items()}",
    "sets": "def f(x): return {y for y in x} | set() - frozenset(x)",
    "comprehensions": "def f(x): return {i: [j for j in range(i) if j] for i in x}, any(y for y in x)",
    "generators": "def g(n):\n    while n:\n        n -= 1\n        yield n\n    yield from n\ndef f(x): return g(x)",
    "closures": "def f(x):\n    def g():\n        nonlocal x\n        x += 1\n    return g(), x",
    "globals of its own": "CACHE = {}\ndef f(x):\n    CACHE[x] = 1\n    return CACHE",
    "recursion": "def f(x): return 1 if x < 2 else x * f(x - 1)",
    "walrus": "def f(x): return [y for z in x if (y := z * 2) > 2]",
    "errors": (
        "def f(x):\n    try: return int(x)\n    except (ValueError, TypeError) as e: return str(e)\n    else: pass\n"
        "def g(x):\n    assert x, 'no'\n    raise KeyError(x) from RecursionError()"
    ),
    "built-in names of its own": "def f(list, max=1):\n    sum = 0\n    for str in list: sum += str\n    return sum",
    "modules": "import math, itertools as it\ndef f(x): return math.sqrt(math.pi), list(it.chain.from_iterable(x))",
    "constants": "import string\nfrom string import digits\ndef f(x): return string.ascii_lowercase.index(x) + digits",
    "collections": (
        "from collections import Counter, defaultdict, deque, OrderedDict\ndef f(x):\n    d = defaultdict(list)\n"
        "    d[0].append(deque(x, maxlen=2).popleft())\n"
        "    return Counter(x).most_common(1), OrderedDict(d).move_to_end(0)"
    ),
    "heap": "import heapq\ndef f(x):\n    heapq.heapify(x)\n    return heapq.heappop(x), heapq.nlargest(1, x, key=abs)",
    "functools": (
        "from functools import lru_cache, reduce\n@lru_cache(maxsize=None)\ndef g(n): return n\n"
        "def f(x): return reduce(max, x)"
    ),
    "operator": (
        "import operator\nfrom operator import itemgetter\n"
        "def f(x): return sorted(x, key=itemgetter(1)), operator.mul(2, 3)"
    ),
    "annotations": (
        "from typing import List, Optional, Dict\nimport typing\nfrom collections import deque\n"
        "def f(x: List[int], y: 'Any' = None, *z: deque, **w: typing.Any) -> Optional[Dict[str, int | None]]:\n"
        "    n: list[int] = []\n    return n\nm: typing.Tuple[int, ...] = ()"
    ),
    "docstrings": '"""Doc."""\ndef f(x):\n    """Doc."""\n    return None',
}  # fmt: skip


@pytest.mark.parametrize("name", ESCAPES)
def test_a_way_out_is_not_confined(name: str) -> None:
    assert not is_confined(ESCAPES[name])


@pytest.mark.parametrize("name", ORDINARY)
def test_an_ordinary_program_is(name: str) -> None:
    compile(ORDINARY[name], name, "exec")
    assert is_confined(ORDINARY[name])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True), ("1, -2.5, 'a', b'', None, True, ...", True), ("[{1: (2, {3})}], x=set()", True),
        ("*[1], **{'a': 1}", True),
        ("*[[1], 2][:-1]", True), ("len('ab'), max", True), ("f'{1:>3}'", True), ("'%s' % 1", True),
        ("TABLE", False), ("f", False), ("''.join('a')", False), ("'{0.real}'.format(1)", False),
        ("(lambda: 1)", False),
        ("[x for x in 'a']", False), ("(y := 1)", False), ("type(1)", False), ("getattr", False), ("__name__", False),
        ("math", False),
    ],
)  # fmt: skip
def test_inputs(text: str, expected: bool) -> None:
    tree = ast.parse(f"_({text})", mode="eval")
    assert isinstance(tree.body, ast.Call)
    nodes = [node for node in policy.check_tree(tree) if node is not tree.body.func]
    assert confined.expression(nodes) == expected


def test_most_ordinary_programs_are_confined(shared: Path) -> None:
    lines = (shared / "data" / "cruxeval" / "cruxeval.jsonl").read_text().splitlines()
    found = [is_confined(json.loads(line)["code"]) for line in lines]
    assert sum(found) / len(found) > 0.95


# --- the lists against the interpreter --------------------------------------------------------------------------------


def listed() -> dict[str, object]:
    """All that a confined program can name and look at, by that name."""
    found = {name: getattr(builtins, name) for name in confined.BUILTINS}
    for module, members in confined.MEMBERS.items():
        if module != "typing":
            found |= {f"{module}.{name}": getattr(importlib.import_module(module), name) for name in members}
    del found["collections.Counter"]
    return found


VALUES: tuple[object, ...] = (True, 1, 1.5, 1j, "a", b"a", (), frozenset(), range(1), None, ..., NotImplemented)
NO_STATE = (
    types.BuiltinFunctionType, types.MethodDescriptorType, types.ClassMethodDescriptorType, types.GetSetDescriptorType,
    types.MemberDescriptorType,
)  # fmt: skip
IN_PYTHON = {"heapq.merge", "heapq.nlargest", "heapq.nsmallest", "functools.cache", "functools.lru_cache"}


def test_what_is_named_leads_to_nothing_that_changes() -> None:
    reached = listed() | {repr(value): value for value in VALUES}
    new = dict(reached)
    while new:
        new = {
            f"{path}.{name}": getattr(thing, name)
            for path, thing in new.items()
            for name in confined.ATTRIBUTES | {"format"}
            if hasattr(thing, name) and path.count(".") < 4
        }
        reached |= new
    for path, thing in reached.items():
        if path in IN_PYTHON:
            continue
        if isinstance(thing, type):
            assert type(thing) is type and thing is not type and thing is not object, path
            with pytest.raises(TypeError):  # a type in C
                thing._ = 0  # type: ignore[attr-defined]
        else:
            assert isinstance(thing, (*NO_STATE, *[type(value) for value in VALUES])), path


def test_what_is_written_in_python_keeps_nothing() -> None:
    found = listed()
    functions = {name for name, thing in found.items() if isinstance(thing, types.FunctionType)}
    assert functions == IN_PYTHON
    for name in functions:
        function = found[name]
        assert isinstance(function, types.FunctionType)
        defaults = (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
        assert all(isinstance(value, (int, type(None))) for value in defaults) and not function.__closure__
        assert not vars(function) and not set(dir(function)) & confined.ATTRIBUTES


def test_results_of_what_is_named_hand_out_no_more() -> None:
    """Objects that a program can make, which are no values: their attributes, as far as they are listed."""

    def generator() -> object:
        yield

    made = [
        generator(), lambda: 0, KeyError(1), UnicodeDecodeError("a", b"", 0, 1, ""), list[int], int | str, slice(1),
        {}.keys(), iter([]), [].append, map(len, []), collections.deque(), collections.defaultdict(int),
        collections.OrderedDict(), collections.Counter(), StopIteration(1), itertools.count(),
        functools.cache(len), functools.cmp_to_key(max), heapq.merge(),
    ]  # fmt: skip
    for thing in made:
        for name in set(dir(thing)) & confined.ATTRIBUTES:
            value = getattr(thing, name)
            assert callable(value) or isinstance(value, (int, str, bytes, type(None))), (thing, name)
            assert value is not type and not isinstance(value, (types.FrameType, types.CodeType, types.ModuleType))


def test_no_handler_that_can_be_written_meets_what_is_not_to_be_met() -> None:
    caught = tuple([getattr(builtins, name) for name in confined.CAUGHT])
    assert caught and confined.CAUGHT <= confined.BUILTINS
    assert not any(
        issubclass(kind, caught) for kind in (MemoryError, RecursionError, GeneratorExit, SystemExit, KeyboardInterrupt)
    )
