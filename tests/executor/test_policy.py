"""Policy, normal form and input expressions: what the checker process does, called in this one."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest

from executor import checker, frames, keys
from executor.policy import HANDED_OUT, LEADING_OUT, MODULES

OK = ("ok", "ok")


def status(program: str, *, policy: bool = True) -> str:
    code, _ = checker.answer((frames.PROGRAM, program.encode()), policy)
    return "ok" if code == frames.CONFINED else frames.STATUSES[code]


def input_status(text: str) -> str:
    code, _ = checker.answer((frames.EXPRESSION, text.encode()), True)
    return "ok" if code == frames.CONFINED else frames.STATUSES[code]


@pytest.mark.parametrize(
    "program",
    [
        "def f(input): return input",
        "def f(x, id=1, hash=2): return id + hash",
        "def f(x): return x.open",
        "def f(x):\n    eval = 1\n    return eval",
        "import math\nfrom collections import Counter, abc\ndef f(x): return math.sqrt(x)",
        "def hash(x): return 1\ndef f(x): return hash(x)",
        "class A:\n    id = 3\n    other = id\ndef f(x): return A.id",
        "def g(x): return x\nclass B:\n    def m(self): return 1\ndef f(x):\n    def h(): return g(x)\n    return h()",
        "def f(x): return 1\ndef f(x): return 2",
        "f = lambda x: x",
        "class A:\n    def __init__(self, x): self.x = x\n    def __add__(self, o): return A(self.x + o.x)\n"
        "    def __eq__(self, o): return self.__dict__ == o.__dict__\n"
        "def f(x): return (A(x) + A(x)).__class__.__name__",
        "class B(list):\n    def __init__(self): super().__init__()\ndef f(x): return B.__mro__, B().__doc__",
        "def f(x): return getattr(x, 'upper')(), x.__len__(), type(x)",
        "def g():\n    id = 1\n    class A:\n        x = id\n    return A\ndef f(x): return g().x",
        "class N:\n    pass\nN.next = None\ndef f(x): return N().next",
        "class Die:\n    def __init__(self, x): self.random = x\n    def roll(self): return self.random\n"
        "def f(x): return Die(x).roll(), Die(x).random",
        "class A:\n    os = 'linux'\n    def inspect(self): return self.os\ndef f(x): return A().inspect()",
        "def random(x): return x * 1103515245 % 2**31\ndef f(sys, os=1): return random(sys), os",
        "from statistics import NormalDist\ndef f(x): return NormalDist(x).samples(1)",
        "from dataclasses import dataclass, field\nfrom re import compile as keyword\ndef f(x): return x.decoder",
        "from json import JSONDecoder as decoder\nfrom string import ascii_letters as random\ndef f(x): return random",
        "from collections.abc import *\nimport collections.abc as abc\ndef f(x): return abc.Sized, Sized",
    ],
)
def test_allowed(program: str) -> None:
    assert status(program) == "ok"


@pytest.mark.parametrize(
    "program",
    [
        "import os\ndef f(x): return x",
        "def f(x):\n    from random import random\n    return random()",
        "import os.path\ndef f(x): return x",
        "import datetime\ndef f(x): return x",
        "from . import y\ndef f(x): return x",
        "def f(x): return open(x)",
        "def f(x): return [eval(y) for y in x]",
        "class A:\n    x = id(1)\ndef f(x): return x",
        "def f(x): return (lambda: hash(x))()",
        "def f(x):\n    def g():\n        return __import__('os')\n    return g()",
        "def g(x): return x",
        "def g(x):\n    f = 1\n    return f",
        "def f(x): return 1" + " + 1" * 80,
        "def f(x): return [" + "1, " * 6000 + "]",
        "def f(x): return '" + "a" * 20000 + "'",
        "def f(x): return ｅｖａｌ(x)",  # noqa: RUF001 - the parser reads eval
        "def f(x): return ().__class__.__base__.__subclasses__()",
        "def f(x): return (lambda: f.__globals__)()",
        "def f(x):\n    g = (y for y in x)\n    return g.gi_frame.f_back",
        "def f(x):\n    try: x()\n    except Exception as e: return e.__traceback__.tb_frame",
        "def f(x): return len.__self__",
        "def g(x): return 1\ndef f(x):\n    f.__code__ = g.__code__\n    return 2",
        "def f(x):\n    del f.__code__",
        "from statistics import random\ndef f(x): return random.choice([0, 1])",
        "from statistics import mean, random as r\ndef f(x): return r.random()",
        "from dataclasses import sys\ndef f(x): return sys.modules['time'].gmtime().tm_yday",
        "from dataclasses import builtins\ndef f(x): return builtins.eval('x+1', {'x': x})",
        "from collections import _sys\ndef f(x): return x",
        "from enum import bltns\ndef f(x): return x",
        "from typing import contextlib\ndef f(x): return x",
        "from json import decoder\ndef f(x): return x",
        "class A:\n    random = 1\nfrom statistics import random\ndef f(x): return A.random",
        "import statistics\ndef f(x): return int(statistics.random.random() * 2)",
        "import statistics as random\ndef f(x): return random.random.random()",
        "import statistics as s\ndef f(x):\n    s.random.seed(x)\n    return s",
        "import statistics\ndef f(x): return statistics.sys.getrefcount(x)",
        "import enum, re\ndef f(x): return re.enum.sys.version, enum.bltns",
        "import typing\ndef f(x): return typing.contextlib.os.environ",
        "import collections\ndef f(x): return collections._sys",
        "import dataclasses\ndef f(x): return dataclasses.inspect.currentframe()",
        "import json\ndef f(x): return json.codecs.builtins",
    ],
)
def test_refused_by_policy_alone(program: str) -> None:
    assert status(program) == "policy"
    assert status(program, policy=False) == "ok"


def test_the_modules_that_allowed_ones_hand_out_are_listed() -> None:
    """By direct import none that is not allowed itself; by attributes none that leads out. What is listed means
    nothing else that a program could want."""
    modules = {name: importlib.import_module(name) for name in MODULES}
    for module in modules.values():
        for name in HANDED_OUT & vars(module).keys():
            assert isinstance(getattr(module, name), ModuleType), (module, name)
        starred = getattr(module, "__all__", [name for name in vars(module) if name[0] != "_"])
        assert HANDED_OUT.isdisjoint(starred), module
        found = {name for name, value in _modules(vars(module)).items() if value.__name__ not in MODULES}
        assert found <= HANDED_OUT, module
    reached, ahead = set(), list(modules.values())
    while ahead:
        module = ahead.pop()
        reached.add(module.__name__)
        inner = [value for name, value in _modules(vars(module)).items() if name not in LEADING_OUT]
        ahead += [value for value in inner if value.__name__ not in reached]
    assert {"codecs", "re._parser"} <= reached
    assert reached.isdisjoint(("_random", "builtins", "inspect", "os", "posix", "random", "sys", "_thread", "time"))


def _modules(space: dict[str, object]) -> dict[str, ModuleType]:
    return {name: value for name, value in space.items() if isinstance(value, ModuleType)}


@pytest.mark.parametrize(
    "program", ["def f(x:", "def f(x): return \ud800".encode("utf-8", "surrogatepass"), "\0", "return 1"]
)
def test_what_is_not_python_is_syntax(program: str | bytes) -> None:
    data = program if isinstance(program, bytes) else program.encode()
    assert frames.STATUSES[checker.answer((frames.PROGRAM, data), True)[0]] == "syntax"


def test_programs_are_equal_up_to_comments_spacing_and_docstrings() -> None:
    def key(text: str) -> bytes:
        return checker.program(text, True)[1][: keys.KEY_BYTES]

    plain = key("def f(x):\n    return x + 1\n")
    assert plain == key('"""Doc."""\n\n# note\ndef f( x ):\n\n    "doc"\n    return (x+1)  # why')
    assert plain != key("def f(x):\n    return x + 2")
    assert plain != key("def f(x):\n    'doc'\n    'doc'\n    return x + 2")
    assert key("def f(x):\n    x\n    return x") != key("def f(x):\n    return x\nx")
    assert key("class A:\n    'only'\ndef f(x): return x") == key("class A: pass\ndef f(x): return x")


@pytest.mark.parametrize(
    "text", ["", "1, [2]", "x=1", "*[1], **{'a': 2}", "lambda y: y", "range(3)", "'a' * 3", "(1,)", "1 # one"]
)
def test_argument_lists(text: str) -> None:
    assert input_status(text) == "ok"


@pytest.mark.parametrize("text", ["1), print(2", "1) + f(2", "1)(2", ")", "x = ", "1\n)\nf(2", "1, x=1, x=2"])
def test_more_or_less_than_one_argument_list_is_refused(text: str) -> None:
    assert input_status(text) == "input"


@pytest.mark.parametrize(
    "text",
    [
        "TABLE[1:], TABLE", "Node(1, Node(2))", "'a b'.split()[0].upper()", "dict(a=1).items()", "range(3)",
        "(lambda s: s.strip())", "[4], (lambda x: x.reverse())", "sorted([3, 1], key=lambda p: -p)", "float('inf')",
        "isinstance(1, int), hasattr(1, 'real')", "[x.real for x in (1, 2)]", "(lambda n: (m := n + 1))(3)",
        "f'{1:>5}'", "'{0.__class__}'.format(1)", "{**{'a': 1}}, *[2]", "x='__class__'", "_TABLE",
    ],
)  # fmt: skip
def test_inputs_compute_arguments(text: str) -> None:
    assert input_status(text) == "ok"


@pytest.mark.parametrize(
    "text",
    [
        "open('x')", "(lambda: eval('1'))()", "().__class__", "x=().__class__.__base__.__subclasses__()",
        "[g.gi_frame for g in [(x for x in 'a')]]", "(lambda: ().__doc__)", "f'{().__class__}'", "Node()._x",
        "getattr((), '__class__')", "setattr(f, 'a', 1)", "delattr(f, 'a')", "attrgetter('__class__')(())",
        "methodcaller('clear')(TABLE)", "type(1)", "type('A', (), {})()", "__build_class__(lambda: 1, 'A')",
        "__import__('os')", "__name__", "(f := lambda x: 1)", "[(f := 1) for _ in 'a']", "x=(TABLE := {})",
        "TABLE.update({1: 2})", "re.enum.sys.modules", "(lambda t: t.clear())(TABLE)", "[TABLE, ''.join('a')]",
        "len.__self__", "(lambda: (yield)).__code__", "(lambda: 1)().real, (lambda: TABLE)()",
    ],
)  # fmt: skip
def test_inputs_do_nothing_else(text: str) -> None:
    assert input_status(text) == "policy"


def test_ordinary_programs_and_inputs_pass(shared: Path) -> None:
    rows = [json.loads(line) for line in (shared / "data" / "cruxeval" / "cruxeval.jsonl").read_text().splitlines()]
    assert len(rows) >= 400
    assert {row["id"]: why for row in rows if (why := (status(row["code"]), input_status(row["input"]))) != OK} == {}


def test_literal_inputs_are_known_by_value_and_others_by_text() -> None:
    def key(text: str) -> bytes:
        return checker.expression(text, True)[1][: keys.KEY_BYTES]

    assert key("1,[2]") == key(" 1, [2,]")
    assert key("a=1, b=2") == key("b=2, a=1")
    assert key("[1]") != key("(1,)")
    assert key("1") != key("(1,)")
    assert key("range(3)") != key("range(4)")
