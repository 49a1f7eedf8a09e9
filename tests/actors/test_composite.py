"""How components and a new f become one program: as text, and nothing of it is parsed here."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import composite
from actors.triplets import PythonTriplets
from azr.base import grammar
from common.config import EnvironmentConfig
from common.jobs import Composition, Validate
from common.types import Status, Task, TaskType
from tests.fakes.executor import FakeExecutor
from tests.fakes.intake import a_task

DOUBLE = dataclasses.replace(a_task(), program="def f(a):\n return a*2")
COUNT = dataclasses.replace(a_task(), program="def f(n):\n return n and 1+f(n-1)")
OWN = "def f(a):\n return g_1(g_0(a))"
RESPONSE = f"<answer>{OWN}\ninput:5</answer>"


@pytest.mark.parametrize(
    ("program", "renamed"),
    [
        ("def f(n):\n return n and f(n - 1)", "def g_2(n):\n return n and g_2(n - 1)"),
        ("def f (n): return n", "def g_2 (n): return n"),
        ("f = lambda x: x", "f = lambda x: x".replace("f", "g_2")),
        ("def f(x): return list(map(f, x))", "def g_2(x): return list(map(g_2, x))"),
        ("def f(f): return f(1)", "def g_2(g_2): return g_2(1)"),
        ("def of(f1): return f1\ndef f_(): return of", "def of(f1): return f1\ndef f_(): return of"),
        ("def f(x): return f'{x}' + rf\"{x}\" + 'f'", "def g_2(x): return f'{x}' + rf\"{x}\" + 'f'"),
        ("def f(x): return f'{x:f}' + '%f %f' % x", "def g_2(x): return f'{x:f}' + '%f %f' % x"),
        ("def f(x): return {x:f(1)} or (lambda:f)", "def g_2(x): return {x:g_2(1)} or (lambda:g_2)"),
        ("def f(x): return 0xf + 1.5", "def g_2(x): return 0xf + 1.5"),
        ("def f(x): return 'of f here'", "def g_2(x): return 'of g_2 here'"),  # another program, and a legal one
    ],
)
def test_a_component_is_the_program_under_its_name(program: str, renamed: str) -> None:
    tasks = [DOUBLE, DOUBLE, dataclasses.replace(DOUBLE, program=program)]
    assert composite.components(tasks)[2] == renamed


@given(st.integers(0, 2**32), st.integers(0, 9))
def test_a_renamed_program_computes_what_it_did(seed: int, value: int) -> None:
    program = grammar.draw(random.Random(seed), held_out=False)
    (text,) = composite.components([dataclasses.replace(DOUBLE, program=program.text)])
    space: dict[str, Any] = {}
    exec(composite.whole([text], "def f(a): return g_0(a)"), space)  # noqa: S102 - a program of our own grammar
    assert space["f"](value) == space["g_0"](value) == program.output(value)


async def test_a_proposal_with_components_is_asked_for_as_one_program() -> None:
    triplets, executor = PythonTriplets(EnvironmentConfig(reject_identity=False, reject_constant=False)), FakeExecutor()
    draft = triplets.parse_proposal(TaskType.ABDUCTION, [a_task()], RESPONSE, [DOUBLE, COUNT])
    assert draft is not None
    validated = await triplets.validate(draft, executor)
    program = f"def g_0(a):\n return a*2\ndef g_1(n):\n return n and 1+g_1(n-1)\n{OWN}"
    assert executor.validated == [Validate(program, ("5",), composition=Composition(OWN, ("g_0", "g_1")))]
    assert validated.task is not None
    assert (validated.task.program, validated.task.program_key, validated.task.composite) == (program, program, True)
    assert program in triplets.solve_prompt(validated.task)


async def test_without_components_nothing_is_a_composite() -> None:
    triplets, executor = PythonTriplets(EnvironmentConfig(reject_identity=False, reject_constant=False)), FakeExecutor()
    draft = triplets.parse_proposal(TaskType.DEDUCTION, [a_task()], RESPONSE)
    assert draft is not None and (draft.composition, draft.composite) == (None, False)
    validated = await triplets.validate(draft, executor)
    assert executor.validated == [Validate(OWN, ("5",))]
    assert validated.status == Status.OK and validated.task is not None and not validated.task.composite


@pytest.mark.parametrize("is_composite", [False, True])
def test_inputs_for_a_composite_make_a_composite(is_composite: bool) -> None:
    given_ = dataclasses.replace(DOUBLE, composite=is_composite)
    triplets = PythonTriplets(EnvironmentConfig(inputs=2, shown=1))
    draft = triplets.parse_proposal(TaskType.INDUCTION, [given_], "<answer>1\n2</answer>")
    assert draft is not None
    assert (draft.program, draft.composition, draft.composite) == (DOUBLE.program, None, is_composite)


def proposing(prompts: str, components: list[Task], task_type: TaskType = TaskType.DEDUCTION) -> str:
    return PythonTriplets(EnvironmentConfig(prompts=prompts)).propose_prompt(task_type, [a_task(task_type)], components)


@pytest.mark.parametrize("task_type", [TaskType.DEDUCTION, TaskType.ABDUCTION])
@pytest.mark.parametrize(
    ("prompts", "end", "demand"),
    [
        ("compact", "", "call g_0 g_1\ndef g_0(a):"),
        ("paper", "\nAssistant: <think>", "each of these functions has to be called: `g_0`, `g_1`."),
    ],
)
def test_a_prompt_shows_the_components_behind_all_else(
    prompts: str, end: str, demand: str, task_type: TaskType
) -> None:
    plain = proposing(prompts, [], task_type)
    prompt = proposing(prompts, [DOUBLE, COUNT], task_type)
    assert plain.endswith(end) and "g_0" not in plain
    more = prompt.removeprefix(plain.removesuffix(end))
    assert more != prompt and more.endswith(end)
    assert demand in more
    for text in composite.components([DOUBLE, COUNT]):
        assert text in more
    assert "g_2" not in more


def test_the_compact_prompt_in_full() -> None:
    assert proposing("compact", [DOUBLE]) == (
        "propose deduction\ndef f(a):\n return a+1\ninput:3\ncall g_0\ndef g_0(a):\n return a*2\n"
    )
