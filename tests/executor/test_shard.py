"""One shard on real processes: what it says of programs and answers, and that nothing they say is believed."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from common.jobs import Validate, Verdict, Verify
from common.types import Task, TaskType
from executor.shard import Shard
from tests.executor.conftest import CONFIG

pytestmark = pytest.mark.asyncio(loop_scope="module")


def task(kind: TaskType, program: str, inputs: tuple[str, ...], outputs: tuple[str, ...], shown: int = 0) -> Task:
    return Task(kind, program, inputs, outputs, key="k", shown=shown)


async def verdicts(shard: Shard, asked: Task, *answers: str) -> list[tuple[bool, str]]:
    reply = await shard.verify(Verify(asked, answers))
    return [(verdict.correct, str(verdict.status)) for verdict in reply.verdicts]


async def test_a_valid_proposal(shard: Shard) -> None:
    program = (
        '"""Doc."""\nclass Box:\n    def __init__(self, x): self.x = x\ndef f(x, y=0):\n    return {Box(x).x: [y]}'
    )
    reply = await shard.validate(Validate(program, ("1, [2, 3]", "'a'", "1,[2,3]")))
    assert (reply.status, reply.outputs) == ("ok", ("{1: [[2, 3]]}", "{'a': [0]}", "{1: [[2, 3]]}"))
    assert reply.input_keys[0] == reply.input_keys[2] != reply.input_keys[1]
    same = await shard.validate(Validate(program.replace('"""Doc."""\n', "# nothing\n"), ("1",)))
    assert same.program_key == reply.program_key != ""


async def test_no_input_is_only_checked(shard: Shard) -> None:
    assert (await shard.validate(Validate("def f(): return 1 / 0", ()))).status == "ok"
    assert (await shard.validate(Validate("def f(): return 1 / 0", ("",)))).status == "error"


@pytest.mark.parametrize(
    ("program", "given", "status"),
    [
        ("def f(x", "1", "syntax"),
        ("import os\ndef f(x): return x", "1", "policy"),
        ("def f(x): return x", "1), print(2", "input"),
        ("def f(x): return x", "1 / 0", "input"),
        ("def f(x): return x", "'a' * 10**10", "input"),
        ("def f(x): return x", "open('a')", "policy"),
        ("def f(x): return 1 / x", "0", "error"),
        ("def f(x): return f(x)", "0", "error"),
        ("def f(x): raise SystemExit", "0", "exit"),
        ("def f(x): return list({'a', 'b', 'c', 'd', 'e', x})", "'f'", "nondeterministic"),
        ("def f(x): return str(object())", "0", "nondeterministic"),
        ("import math\ndef f(x):\n    math.n = getattr(math, 'n', 0) + 1\n    return math.n", "0", "nondeterministic"),
        ("def f(x):\n    while True: pass", "0", "timeout_cpu"),
        ("def f(x): return len('a' * 10**9)", "0", "memory"),
        ("def f(x):\n    y = []\n    while True: y.append([y])", "0", "timeout_cpu|memory"),
        ("def f(x): return 'a' * 5000", "0", "too_big"),
        ("def f(x): return 10**x", "5000", "too_big"),
        ("class A:\n    def __eq__(self, other): return True\ndef f(x): return A()", "0", "unserialisable"),
        ("class I(int):\n    def __eq__(self, other): return True\ndef f(x): return [I(x)]", "0", "unserialisable"),
        ("from collections import Counter\ndef f(x): return Counter(x)", "'aab'", "unserialisable"),
        ("async def f(x): return x", "0", "unserialisable"),
        ("def f(x):\n    print(x)\n    return x", "0", "ok"),
        ("def f(x): return x.encode('shift_jis').decode('utf-16', 'replace')", "'ab'", "ok"),
        ("def f(x):\n    x = set('abcdef')\n    return {c: 1 for c in x}", "0", "ok"),
        ("import math\ndef f(x): return [math.nan, {x}, frozenset(), -0.0, 1j]", "0", "ok"),
    ],
)  # fmt: skip
async def test_status_of_a_program(shard: Shard, program: str, given: str, status: str) -> None:
    reply = await shard.validate(Validate(program, (given,)))
    assert reply.status in status.split("|"), reply
    assert (reply.status == "ok") == bool(reply.outputs)


RANDOM = {
    "import statistics\ndef f(x): return getattr(statistics, 'random').uniform(0, 1)": "nondeterministic",
    "import statistics\ndef f(x): return int(getattr(statistics, 'random').uniform(0, 1) * 2)": "nondeterministic",
    "from statistics import NormalDist\ndef f(x): return NormalDist(x, 1).samples(1)[0] > x": "nondeterministic",
    "from statistics import NormalDist\ndef f(x): return sum(NormalDist(x, 1).samples(50))": "nondeterministic",
    "from statistics import NormalDist\ndef f(x): return NormalDist(x, 1).samples(1)[0] > x + 9": "ok",
    "from statistics import NormalDist\ndef f(x): return NormalDist(x, 1).samples(1, seed=x)": "ok",
}


async def test_chance_falls_alike_in_every_life_and_otherwise_on_the_other_side(native: bool) -> None:
    lives = []
    for _ in range(2):
        shard = Shard(dataclasses.replace(CONFIG, cache=0), native=native)
        await shard.start()
        try:
            replies = [await shard.validate(Validate(text, ("5",))) for text in RANDOM]
            program = await shard.reader.program(next(iter(RANDOM)))
            drawn = [await shard.sides[0].run(program, await shard.reader.expressions(["5"])) for _ in range(2)]
        finally:
            await shard.close()
        assert [reply.status for reply in replies] == list(RANDOM.values())
        assert drawn[0] == drawn[1] and drawn[0][0].status == "ok"
        lives.append((replies, drawn))
    assert lives[0] == lives[1]


async def test_programs_do_not_meet_each_other(shard: Shard) -> None:
    spoil = "import math\ndef f(x):\n    math.sqrt = lambda v: 42\n    return math.sqrt(x)"
    await shard.validate(Validate(spoil, ("4", "9")))
    reply = await shard.validate(Validate("import math\ndef f(x): return math.sqrt(x)", ("4", "9")))
    assert reply.outputs == ("2.0", "3.0")


async def test_deduction_answers_are_compared_as_values_and_never_run(shard: Shard) -> None:
    asked = task(TaskType.DEDUCTION, "def f(x): return {x: [1.0, 2]}", ("'a'",), ("{'a': [1.0, 2]}",))
    assert await verdicts(
        shard, asked,
        "{'a': [1.0, 2]}", "{ 'a': [True, 2.0] }  ", "{'a': (1.0, 2)}", "{'a': [1, 2], }", "{'a': [1, 2]",
        "dict(a=[1, 2])",
        "__import__('os').system('true')", "f('a')", "", "'" + "a" * 5000 + "'", "[" * 5000,
    ) == [
        (True, "ok"), (True, "ok"), (False, "ok"), (True, "ok"), (False, "syntax"), (False, "syntax"),
        (False, "syntax"), (False, "syntax"), (False, "syntax"), (False, "too_big"), (False, "too_big"),
    ]  # fmt: skip


async def test_abduction_answers_are_judged_apart(shard: Shard) -> None:
    program = "def f(x):\n    while x > 5: pass\n    return x * 2"
    asked = task(TaskType.ABDUCTION, program, ("2",), ("4",))
    answers = ("2", "9", "2.0", "'a'", "3", "1), print(2", "len('ab')", "None", "2")
    assert await verdicts(shard, asked, *answers) == [
        (True, "ok"), (False, "timeout_cpu"), (True, "ok"), (False, "error"), (False, "ok"), (False, "input"),
        (True, "ok"), (False, "error"), (True, "ok"),
    ]  # fmt: skip


async def test_a_comment_may_end_an_input_and_hides_nothing(shard: Shard) -> None:
    asked = task(TaskType.ABDUCTION, "def f(x): return x * 2", ("2",), ("4",))
    answers = ("2  # two", "2,  # two", "1 # ) or (2", "2) # or", "1) == 1 or (2 #")
    assert await verdicts(shard, asked, *answers) == [
        (True, "ok"), (True, "ok"), (False, "ok"), (False, "input"), (False, "input"),
    ]  # fmt: skip


async def test_one_answer_that_ends_the_child_does_not_touch_the_others(shard: Shard) -> None:
    program = "def f(x):\n    y = ' ' * (10**9 * x)\n    return 0"
    asked = task(TaskType.ABDUCTION, program, ("0",), ("0",))
    assert await verdicts(shard, asked, "0", "1", "False") == [(True, "ok"), (False, "memory"), (True, "ok")]


async def test_induction_answers_run_on_the_hidden_inputs_only(shard: Shard) -> None:
    asked = task(
        TaskType.INDUCTION, "def f(x): return x + x", ("1", "2", "'a'", "[0]"), ("2", "4", "'aa'", "[0, 0]"), 2
    )
    assert await verdicts(
        shard, asked,
        "def f(x): return x * 2", "def f(x): return 2 * x if x != 1 else 99", "def f(x): return x + 1",
        "def g(x): return x",
        "import os\ndef f(x): return x", "def f(x):\n  while 1: pass",
        "class A(list):\n  def __eq__(s, o): return True\ndef f(x): return A()", "def f(x)",
    ) == [
        (True, "ok"), (True, "ok"), (False, "error"), (False, "policy"),
        (False, "policy"), (False, "timeout_cpu"), (False, "unserialisable"), (False, "syntax"),
    ]  # fmt: skip


async def test_a_task_without_a_readable_output_says_nothing_about_answers(shard: Shard) -> None:
    asked = task(TaskType.DEDUCTION, "def f(x): return x", ("1",), ("object()",))
    assert await verdicts(shard, asked, "1", "object()") == [(False, "infra")] * 2


async def test_equal_jobs_in_flight_share_a_run_and_results_are_remembered(shard: Shard) -> None:
    job = Validate("def f(x): return sorted(x)", ("[3, 1, 2]",))
    before = shard.executions
    replies = await asyncio.gather(*[shard.validate(job) for _ in range(20)])
    assert {reply.outputs for reply in replies} == {("[1, 2, 3]",)}
    await shard.validate(job)
    assert shard.executions == before + 2  # one on each side


async def test_time_and_memory_verdicts_are_not_remembered(shard: Shard) -> None:
    job = Validate("def f(x): return len(' ' * 10**9)", ("0",))
    before = shard.executions
    for _ in range(2):
        assert (await shard.validate(job)).status == "memory"
    assert shard.executions == before + 2


async def test_a_caller_that_leaves_takes_nothing_with_it(shard: Shard) -> None:
    job = Validate("def f(x): return x * 3", ("7",))
    leaver = asyncio.create_task(shard.validate(job))
    stayer = asyncio.create_task(shard.validate(job))
    await asyncio.sleep(0)
    leaver.cancel()
    assert (await stayer).outputs == ("21",)
    assert (await shard.validate(Validate("def f(x): return x", ("8",)))).outputs == ("8",)


async def test_verdicts_of_many_callers(shard: Shard) -> None:
    asked = [task(TaskType.ABDUCTION, f"def f(x): return x + {n}", ("1",), (str(1 + n),)) for n in range(40)]
    replies = await asyncio.gather(*[shard.verify(Verify(one, ("1", "2"))) for one in asked])
    assert all(r.verdicts == (Verdict(True, "ok"), Verdict(False, "ok")) for r in replies)


async def test_strict_equality_tells_types_apart(native: bool) -> None:
    strict = Shard(dataclasses.replace(CONFIG, strict=True), native=native)
    await strict.start()
    try:
        deduction = task(TaskType.DEDUCTION, "def f(x): return x", ("1",), ("[1, {2: 3, 4: 5}]",))
        assert await verdicts(strict, deduction, "[1,{2:3,4:5}]", "[True, {2: 3, 4: 5}]", "[1, {4: 5, 2: 3}]") == [
            (True, "ok"), (False, "ok"), (False, "ok"),
        ]  # fmt: skip
        abduction = task(TaskType.ABDUCTION, "def f(x): return x", ("1",), ("1",))
        assert await verdicts(strict, abduction, "1", "1.0", "True") == [(True, "ok"), (False, "ok"), (False, "ok")]
    finally:
        await strict.close()


async def test_an_answer_does_not_spoil_those_behind_it(shard: Shard) -> None:
    program = "from decimal import *\ndef f(x, p=0):\n  if p: getcontext().prec = p\n  return str(Decimal(x) / 3)"
    asked = task(TaskType.ABDUCTION, program, ("2",), (repr("0." + "6" * 27 + "7"),))
    assert await verdicts(shard, asked, "2, 5", "2") == [(False, "ok"), (True, "ok")]
    assert (await shard.validate(Validate(program, ("2, 5", "2")))).status == "nondeterministic"
    assert await verdicts(shard, asked, "2") == [(True, "ok")]


async def test_a_job_does_not_suffer_from_another_that_shares_an_input(shard: Shard) -> None:
    program = "def f(x):\n    while x: pass\n    return x"
    together, alone = await asyncio.gather(
        shard.validate(Validate(program, ("1", "0"))), shard.validate(Validate(program, ("0",)))
    )
    assert (together.status, alone.status) == ("timeout_cpu", "ok")


async def test_hundreds_of_inputs_take_several_children(shard: Shard) -> None:
    reply = await shard.validate(Validate("def f(x): return x + 1", tuple(map(str, range(600)))))
    assert reply.outputs == tuple(map(str, range(1, 601)))


async def test_a_task_that_cannot_be_read_says_nothing_about_answers(shard: Shard) -> None:
    unreadable = task(TaskType.ABDUCTION, "def f(", ("1",), ("1",))
    assert await verdicts(shard, unreadable, "1", "2") == [(False, "infra")] * 2
    hidden = task(TaskType.INDUCTION, "", ("1", "("), ("1", "1"), shown=1)
    assert await verdicts(shard, hidden, "def f(x): return x") == [(False, "infra")]


RAISES = "def f(x):\n    if x > 1: return {}[x]\n    return [1 / x, int('a' * (x < 0))]"


async def test_an_exception_is_an_outcome_where_it_is_asked_for(shard: Shard) -> None:
    reply = await shard.validate(Validate(RAISES, ("0", "1", "2"), errors=True))
    assert (reply.status, reply.outputs) == ("ok", ("ZeroDivisionError", "ValueError", "KeyError"))
    plain = await shard.validate(Validate("def f(x): return x", ("1",), errors=True))
    assert (plain.status, plain.outputs) == ("ok", ("NoError",))
    assert reply.program_key and len(reply.input_keys) == 3
    assert (await shard.validate(Validate(RAISES, ("0",)))).status == "error"


@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("def f(x): return [][1] if list({'a', 'b', 'c', 'd', 'e', 'g'})[0] < 'd' else 1 / 0", "nondeterministic"),
        ("def f(x): return list({'a', 'b', 'c', 'd', 'e', 'g', 'h'})", "nondeterministic"),
        ("def f(x): return 1 if list({'a', 'b', 'c', 'd', 'e', 'g'})[0] < 'd' else 1 / 0", "nondeterministic"),
        ("def f(x): raise SystemExit", "exit"),
        ("def f(x):\n    while True: pass", "timeout_cpu"),
        ("def f(x", "syntax"),
        ("class NoError(Exception): pass\ndef f(x): raise NoError", "unserialisable"),
        ("def f(x): raise type('not a name', (Exception,), {})", "unserialisable"),
        ("def f(x): raise type('A' * 100, (Exception,), {})", "unserialisable"),
        ("def f(x): raise type('\\n</answer>', (Exception,), {})", "unserialisable"),
    ],
)
async def test_what_is_no_exception_that_can_be_asked_for(shard: Shard, program: str, status: str) -> None:
    reply = await shard.validate(Validate(program, ("1",), errors=True))
    assert (reply.status, reply.outputs) == (status, ())


async def test_arguments_that_fail_are_no_error_of_the_program(shard: Shard) -> None:
    assert (await shard.validate(Validate("def f(x): return x", ("1 / 0",), errors=True))).status == "input"


async def test_answers_to_error_tasks_are_not_executed(shard: Shard) -> None:
    asked = task(TaskType.ERROR, RAISES, ("0",), ("1",))
    assert await verdicts(shard, asked, "1", "KeyError") == [(False, "infra")] * 2
