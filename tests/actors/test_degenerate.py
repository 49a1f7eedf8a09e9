"""Programs that need no thought: told by what they do."""

from __future__ import annotations

import ast
import math
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio

from actors.degenerate import _ARGUMENT, degenerate
from actors.environment import Draft
from actors.triplets import PythonTriplets
from common.config import EnvironmentConfig, ExecutorConfig
from common.jobs import Validate, Validation, Verdict, Verdicts, Verify
from common.types import Status, Task, TaskType
from executor.shard import Shard
from tests.fakes.executor import FakeExecutor

Function = Callable[..., Any]
RULES = frozenset((Status.IDENTITY, Status.CONSTANT))


class FunctionExecutor:
    """A program is one of our functions, and inputs are literals. Keeps count of what it was asked."""

    def __init__(self, function: Function, statuses: Mapping[str, str] | None = None) -> None:
        """`statuses` of inputs that are not to be run."""
        self._function, self._statuses = function, statuses or {}
        self.runs = 0

    async def validate(self, job: Validate) -> Validation:
        self.runs += 1
        outputs = []
        for text in job.inputs:
            try:
                outputs.append(repr(self._function(*ast.literal_eval(f"[{text}\n]"))))
            except Exception as error:  # noqa: BLE001 - as a program may
                return Validation(Status.ERROR, type(error).__name__)
            if text in self._statuses:
                return Validation(self._statuses[text])
        keys = tuple(repr(ast.literal_eval(f"[{text}\n]")) for text in job.inputs)
        return Validation(Status.OK, "", tuple(outputs), job.program, keys)

    async def verify(self, job: Verify) -> Verdicts:
        assert job.task.type is TaskType.DEDUCTION  # anything else would run something
        wanted = ast.literal_eval(job.task.outputs[0])
        return Verdicts(tuple(Verdict(ast.literal_eval(text) == wanted, Status.OK) for text in job.answers))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shard() -> AsyncIterator[Shard]:
    shard = Shard(ExecutorConfig())
    await shard.start()
    yield shard
    await shard.close()


async def judge(
    function: Function,
    *inputs: str,
    task_type: TaskType = TaskType.ABDUCTION,
    statuses: Mapping[str, str] | None = None,
    rules: frozenset[Status] = RULES,
) -> tuple[str, int]:
    """The judgement, and how many executions it cost beyond the validation."""
    found = await FunctionExecutor(function).validate(Validate("f", inputs))
    assert found.status == Status.OK
    executor = FunctionExecutor(function, statuses)
    task = Task(task_type, "f", inputs, found.outputs, "key")
    return await degenerate(task, found.input_keys, executor, rules), executor.runs


@pytest.mark.parametrize("given_", ["5", "0", "'ab'", "''", "[1, [2]]", "{'a': 1}", "1.5", "(1, 2)"])
async def test_identity_and_constant(given_: str) -> None:
    assert (await judge(lambda a: a, given_))[0] == Status.IDENTITY
    assert (await judge(lambda a: 7, given_))[0] == Status.CONSTANT
    assert (await judge(lambda a: [a], given_)) == (Status.OK, 1)


async def test_each_rule_is_one_of_its_own() -> None:
    identity, constant = frozenset((Status.IDENTITY,)), frozenset((Status.CONSTANT,))
    assert (await judge(lambda a: a, "5", rules=identity))[0] == Status.IDENTITY
    assert (await judge(lambda a: 7, "5", rules=constant))[0] == Status.CONSTANT
    assert await judge(lambda a: 7, "5", rules=identity) == (Status.OK, 0)  # nothing to look for
    assert await judge(lambda a: a, "5", rules=constant) == (Status.OK, 1)
    for inputs, found in ((("1", "2"), Status.IDENTITY), (("0", "1"), Status.CONSTANT)):
        for rules in (identity, constant):
            status, _ = await judge(lambda a: max(a, 1), *inputs, task_type=TaskType.INDUCTION, rules=rules)
            assert status == (found if found in rules else Status.OK)


@pytest.mark.parametrize(
    ("function", "given_"),
    [
        (lambda a: max(a, 1), "5"),
        (lambda a: min(a, 7), "5"),
        (lambda a: a % 100, "5"),
        (abs, "5"),
        (lambda a: round(a, 1), "1.5"),
        (lambda a: a > 100, "5"),
        (lambda a: a == 5, "5"),
        (str.strip, "'ab'"),
        (str.lower, "'ab'"),
        (str.isalpha, "'ab'"),
        (lambda a: a.replace("q", "k"), "'ab'"),
        (lambda a: a.count("x"), "'ab'"),
        (sorted, "[1, 2, 3]"),
        (lambda a: sorted(a) == a, "[1, 2, 3]"),
        (len, "[1, 2, 3]"),
        (lambda a: list(dict.fromkeys(a)), "[1, 2, 2]"),
        (lambda a: a[:5], "[1, 2, 3]"),
        (lambda a: a[:3], "[1, 2, 3]"),
        (lambda a: {k: v for k, v in a.items() if v}, "{'a': 1}"),
        (lambda a: [abs(x) for x in a], "[1, 2, 3]"),
        (lambda a: bool(a), "[1, 2]"),
        (lambda a: len(a), "{'a': 1}"),
        (lambda a, b: a - b, "5, 3"),
        (lambda a, b: a == b, "5, 3"),
        (math.gcd, "4, 9"),
        (lambda a, b: (a, b), "1, 2"),
    ],
)
async def test_what_only_looks_so_on_one_input_is_a_task(function: Function, given_: str) -> None:
    status, _ = await judge(function, given_)
    assert status == Status.OK


async def test_a_pair_of_arguments_is_no_argument() -> None:
    assert (await judge(lambda a, b: (a, b), "1, 2"))[0] == Status.OK
    assert (await judge(lambda a: a, "(1, 2)"))[0] == Status.IDENTITY


async def test_an_input_that_fails_says_nothing() -> None:
    def positive(a: int) -> int:
        if a < 1:
            raise ValueError
        return 7

    assert (await judge(positive, "5"))[0] == Status.CONSTANT  # on 6, 1051 and others

    def close(a: int) -> int:
        if not 4 < a < 7:
            raise ValueError
        return 7

    assert (await judge(close, "5")) == (Status.OK, 7)  # on 6 alone, which is not enough
    assert (await judge(lambda a: 7, "None")) == (Status.OK, 0)
    assert (await judge(lambda a: 7, "True")) == (Status.OK, 1)


async def test_no_answer_of_the_executor_is_none_of_ours() -> None:
    assert (await judge(lambda a: 7, "5", statuses={"0": Status.INFRA})) == (Status.INFRA, 2)
    assert (await judge(lambda a: 7, "5", statuses={"0": Status.TIMEOUT_CPU}))[0] == Status.CONSTANT


async def test_an_induction_task_is_judged_by_its_inputs_and_runs_nothing() -> None:
    induction = TaskType.INDUCTION
    assert (await judge(lambda a: max(a, 1), "1", "2", task_type=induction)) == (Status.IDENTITY, 0)
    assert (await judge(lambda a: max(a, 1), "0", "1", task_type=induction)) == (Status.CONSTANT, 0)
    assert (await judge(lambda a: max(a, 1), "0", "1", "2", task_type=induction)) == (Status.OK, 0)
    assert (await judge(lambda a, b: (a, b), "1, 2", "3, 4", task_type=induction)) == (Status.OK, 0)


@pytest.mark.parametrize(
    ("program", "given_", "status"),
    [
        ("def f(a): return a", "[1,2]", Status.IDENTITY),
        ("def f(a): return a[:]", "'it''s'", Status.IDENTITY),
        ("def f(a): return dict(a)", "{'b': {1, 2}}", Status.IDENTITY),
        ("def f(a): return a", "5 if True else 6", Status.IDENTITY),
        ("def f(a): return a", "a=5", Status.IDENTITY),
        ("def f(a): return a", "2+3", Status.IDENTITY),
        ("def f(a): return a", "a = 2+3  # five", Status.IDENTITY),
        ("def f(*, a): return a", "a=2+3", Status.IDENTITY),
        ("def f(a): return a", "[1]*3", Status.IDENTITY),
        ("def f(a): return a[:]", "list(range(3))", Status.IDENTITY),
        ("def f(a): return a", "*[5]", Status.IDENTITY),
        ("def f(a): return a", "**{'a': 'b'}", Status.IDENTITY),
        ("def f(a): return a", "(lambda x: {x: x})(1)", Status.IDENTITY),
        ("def f(a): return 7", "2+3", Status.CONSTANT),
        ("def f(*, a): return 7", "a=5", Status.CONSTANT),
        ("def f(*, a): return 7", "a=2+3", Status.CONSTANT),
        ("def f(a): return len([a])", "'a'*2", Status.CONSTANT),
        ("def f(a): return a + 1", "2+3", Status.OK),
        ("def f(a): return max(a, 1)", "2+3", Status.OK),
        ("def f(a): return sorted(a)", "list(range(3))", Status.OK),
        ("def f(a): return len(a)", "[1]*3", Status.OK),
        ("def f(a, b): return a", "*[5, 3]", Status.OK),  # of several arguments
        ("T = 5\ndef f(a): return a", "T", Status.OK),  # its value is the program's own
        ("def f(a=0): return 7", "", Status.OK),
        ("def f(a, b): return b, a", "2, 1", Status.OK),
        ("def f(a): return len({a})", "(1, 2)", Status.CONSTANT),
        ("def f(a):\n while a > 9: pass\n return 7", "5", Status.CONSTANT),  # for ever on 1051
        ("def f(a): return max(a, 1)", "5", Status.OK),
        ("def f(a): return a.lower()", "'abc'", Status.OK),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_by_the_executor(shard: Shard, program: str, given_: str, status: Status) -> None:
    triplets = PythonTriplets(EnvironmentConfig())
    assert (await triplets.validate(Draft(TaskType.DEDUCTION, program, (given_,)), shard)).status == status


@pytest.mark.asyncio(loop_scope="module")
async def test_induction_by_the_executor(shard: Shard) -> None:
    triplets = PythonTriplets(EnvironmentConfig(inputs=2, shown=1))
    program = "def f(a): return max(a, 1)"
    for inputs, status in (
        (("3", "2"), Status.IDENTITY),
        (("3", "a=2"), Status.IDENTITY),
        (("1+2", "2"), Status.IDENTITY),
        (("0", "1"), Status.CONSTANT),
        (("0", "2"), Status.OK),
        (("1-1", "2"), Status.OK),
    ):
        assert (await triplets.validate(Draft(TaskType.INDUCTION, program, inputs), shard)).status == status
    turned = Draft(TaskType.INDUCTION, "def f(a): return -a", ("f(1)", "f(2)"))  # to 1 and 2, which f is never given
    assert (await triplets.validate(turned, shard)).status == Status.OK


@pytest.mark.asyncio(loop_scope="module")
async def test_inputs_that_are_no_literals_cost_one_execution_more(shard: Shard) -> None:
    triplets = PythonTriplets(EnvironmentConfig())

    async def runs(program: str, given_: str) -> int:
        before = shard.executions
        assert (await triplets.validate(Draft(TaskType.DEDUCTION, program, (given_,)), shard)).status == Status.OK
        return shard.executions - before

    literal = await runs("def f(a): return a * 3", "40")
    assert await runs("def f(a): return a * 5", "30 + 10") == literal + 2  # one on each side
    assert await runs("def f(a): return a * 7", "30 + 10") == literal  # and only once
    assert await runs("def f(a): return a * 9", "a=40") == literal
    program, given_ = await shard.reader.program(_ARGUMENT), *await shard.reader.expressions(["30 + 10"])
    assert program.confined and given_.confined  # so it may share a child


@pytest.mark.parametrize(("status", "found"), [(Status.INFRA, Status.INFRA), (Status.ERROR, Status.OK)])
async def test_no_value_of_an_input(status: Status, found: Status) -> None:
    def judged(job: Validate) -> Validation:
        return Validation(status) if job.inputs == ("2 + 3",) else Validation(Status.OK, "", ("7",), "", job.inputs)

    executor = FakeExecutor(validate=judged, verify=lambda task, text: Verdict(False, Status.SYNTAX))
    task = Task(TaskType.ABDUCTION, "f", ("2 + 3",), ("7",), "key")
    assert await degenerate(task, ("2 + 3",), executor, RULES) == found
