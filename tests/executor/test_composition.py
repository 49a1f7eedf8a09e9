"""The new part of a composite: what calls its components, what binds one of them, and that a real shard says so."""

from __future__ import annotations

import ast
import keyword

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.jobs import Composition, Validate
from executor import checker, frames
from executor.composition import CompositionError, bound, check
from executor.shard import Shard

GIVEN = "def g_0(x):\n    return x * 2\ndef g_1(x):\n    return g_1(x - 1) if x > 9 else x"
CALLS = "\ndef f(x): return g_0(x)"


def refused(own: str, *names: str) -> str:
    """Why, or nothing."""
    try:
        check(ast.parse(own), names or ("g_0",))
    except CompositionError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "own",
    [
        "def f(x): return g_0(x)",
        "def f(x): return [g_0(y) for y in x]",
        "def f(x):\n if False: g_0(x)\n return x",
        "def f(x):\n def helper(): return g_0(x)\n return x",
        "f = lambda x: g_0(x)",
        "f: object = lambda x: g_0(x)",
        "def f(x): return x\ndef f(x): return g_0(x)",
        "def f(x): return g_0(x)\nf = staticmethod(f)",
        "def f(x): return g_0(g_0)",
        "def f(x): return g_0(x, g_0=1)",  # a keyword of somebody else's
        "def f(x):\n x.g_0 = 1\n return g_0(x).g_0",
        "def f(x): return g_0(x) + sum(map(g_0, x))",
        "def f(g_00, g_): return g_0(g_00)",
        "def f(x): return 'def g_0(): pass', g_0(x)",
        "def f(x):\n match x:\n  case g_0.a: return 1\n  case list(g_0=1): return 2\n return g_0(x)",
        "import json.g_0\ndef f(x): return g_0(x)",  # binds json
    ],
)
def test_what_calls_and_binds_nothing(own: str) -> None:
    assert refused(own) == ""


@pytest.mark.parametrize(
    "own",
    [
        "def f(x): return x",
        "def f(x): return g_0",
        "def f(x): return map(g_0, x)",
        "def f(x): return x.g_0(1)",
        "def f(x): return (g_0)[0](x)",
        "def f(x): return g_1(x)",
        "def f(x): return 'g_0(x)'  # g_0(x)",
        "def other(x): return g_0(x)\ndef f(x): return other(x)",
        "g_0(1)\ndef f(x): return x",
        "def f(x): return g_0(x)\ndef f(x): return x",
        "class A:\n def f(self): return g_0(1)\ndef f(x): return x",
        "",
    ],
)
def test_what_never_calls(own: str) -> None:
    assert refused(own) == "f never calls g_0"


@pytest.mark.parametrize(
    "binding",
    [
        "def g_0(x): return x",
        "async def g_0(x): return x",
        "class g_0: pass",
        "class A:\n def g_0(self): pass",
        "g_0 = len",
        "g_0: int = 1",
        "g_0: int",
        "g_0 += 1",
        "a, (b, *g_0) = 1, (2, 3)",
        "(g_0 := 1)",
        "[0 for g_0 in 'a']",
        "[g_0 := x for x in 'a']",
        "for g_0 in 'a': pass",
        "with a as g_0: pass",
        "with a as (b, g_0): pass",
        "try: pass\nexcept ValueError as g_0: pass",
        "import g_0",
        "import g_0.a",
        "import math as g_0",
        "from math import floor as g_0",
        "from math import g_0",
        "del g_0",
        "def h():\n global g_0\n g_0 = 1",
        "def h(): global g_0",
        "def h():\n def i(): nonlocal g_0",
        "def h(g_0): return g_0(1)",
        "def h(g_0, /): pass",
        "def h(a, *g_0): pass",
        "def h(*, g_0=1): pass",
        "def h(**g_0): pass",
        "lambda g_0: g_0",
        "match 1:\n case g_0: pass",
        "match 1:\n case int() as g_0: pass",
        "match 1:\n case [1, *g_0]: pass",
        "match 1:\n case {'a': g_0}: pass",
        "match 1:\n case {**g_0}: pass",
        "match 1:\n case int(real=g_0): pass",
        "def h():\n g_0 = 1",
    ],
)
def test_what_binds_a_component_again(binding: str) -> None:
    assert refused(binding + CALLS) == "binds g_0 again"
    assert refused(CALLS + "\n" + binding) == "binds g_0 again"
    assert refused(binding.replace("g_0", "own") + CALLS) == ""


def test_all_components_count() -> None:
    names = ("g_0", "g_1", "g_2")
    assert refused("def f(x): return g_0(g_1(g_2(x)))", *names) == ""
    assert refused("def f(x): return g_0(x)", *names) == "f never calls g_1"  # and not g_2
    assert refused("def f(x): return g_0(g_2(x))", *names) == "f never calls g_1"
    assert refused("def f(g_2): return g_0(g_1(g_2(1)))", *names) == "binds g_2 again"


@given(st.lists(st.sampled_from(["x", "g_0", "a_b", "f"]), min_size=1, max_size=4, unique=True))
def test_bound_names_are_those_that_python_sees(names: list[str]) -> None:
    """Parameters, targets and definitions alike: against the symbol tables of the compiled code."""
    assert not any(map(keyword.iskeyword, names))
    source = f"def h({', '.join(names)}):\n {names[0]} = 1\n for {names[-1]} in (): pass\n lambda {names[0]}: 0"
    found = {name for node in ast.walk(ast.parse(source)) for name in bound(node)}
    code = compile(source, "", "exec")
    function = next(part for part in code.co_consts if hasattr(part, "co_varnames"))
    assert found == {*code.co_names, *function.co_varnames}


def answer(names: str, own: str) -> tuple[int, bytes]:
    return checker.answer((frames.COMPOSITE, f"{names}\n{own}".encode()), True)


def test_the_checker_answers_for_the_new_part_alone() -> None:
    assert answer("g_0", "def f(x): return g_0(x)") == (frames.OK, b"")
    assert answer("g_0 g_1", "def f(x): return g_0(x)") == (frames.COMPOSITION, b"f never calls g_1")
    assert answer("g_0", " y = g_0(1)\ndef f(x): return g_0(x)")[0] == frames.SYNTAX  # would go on in the body of g_0
    assert answer("g_0", "def f(x): return g_0(x" + " + 1" * 80 + ")")[0] == frames.POLICY


@pytest.mark.asyncio(loop_scope="module")
async def test_a_shard_runs_the_whole_and_checks_the_new_part(shard: Shard) -> None:
    async def status(own: str, given_: str = "3", names: tuple[str, ...] = ("g_0", "g_1")) -> tuple[str, str]:
        job = Validate(f"{GIVEN}\n{own}", (given_,), composition=Composition(own, names))
        found = await shard.validate(job)
        return str(found.status), found.outputs[0] if found.outputs else found.detail

    both = "def f(x): return g_1(g_0(x)) + 1"
    assert await status(both) == ("ok", "7")
    assert await status(both, names=("g_0", "g_1", "g_2")) == ("composition", "f never calls g_2")
    assert await status(both) == ("ok", "7")  # remembered as what it was asked for
    assert await status("def f(x): return g_0(x)") == (
        "composition",
        "f never calls g_1",
    )  # g_1 calling itself is not f
    assert await status(f"def g_0(x): return x\n{both}") == ("composition", "binds g_0 again")
    assert (await status("def f(x): return g_0(g_1(x)"))[0] == "syntax"
    assert (await status("def h(x): return g_0(g_1(x))"))[0] == "policy"  # no f
    assert (await status("def f(x): return g_0(x) // g_1(x)", "0"))[0] == "error"
    assert (await status(both, "1,"))[0] == "ok" and (await status(both, ")"))[0] == "input"
    found = await shard.validate(Validate(f"{GIVEN}\n{both}", ("3",)))
    again = await shard.validate(Validate(f"{GIVEN}\n{both}", ("3",), composition=Composition(both, ("g_0", "g_1"))))
    assert found == again and found.program_key
