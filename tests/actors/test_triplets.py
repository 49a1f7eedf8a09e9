"""Prompts, the reading of responses, and what is asked of an executor, with a small real executor passed in."""

from __future__ import annotations

import ast
import asyncio
import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.codec import Codec
from actors.compact import Compact
from actors.environment import Answer, Draft, task_key
from actors.triplets import PythonTriplets
from actors.wording import Proposal, read_tags
from azr.base import grammar
from common.config import EnvironmentConfig
from common.errors import PartFailed
from common.jobs import Validate, Validation, Verdict, Verdicts, Verify
from common.types import TASK_TYPES, Status, Task, TaskType

CONFIG = EnvironmentConfig(references=1, inputs=4, shown=2)
PROGRAM = "def f(a):\n b=(a+7)%10\n return b"
DEDUCTION = Task(TaskType.DEDUCTION, PROGRAM, ("5",), ("2",), "key")
ABDUCTION = Task(TaskType.ABDUCTION, PROGRAM, ("5",), ("2",), "key")
INDUCTION = Task(TaskType.INDUCTION, PROGRAM, ("1", "2", "3", "4"), ("8", "9", "0", "1"), "key", shown=2)
TASKS = {task.type: task for task in (DEDUCTION, ABDUCTION, INDUCTION)}


IDENTITY = "def f(a):\n b=(a+0)%10\n return b"  # on digits, in the grammar
CONSTANT = "def f(a):\n b=min(a,1)\n c=max(b,1)\n return c"


class GrammarExecutor:
    """Judges programs of the base model's grammar; any other program is an error. Keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Validate | Verify] = []

    async def validate(self, job: Validate) -> Validation:
        self.asked.append(job)
        program = grammar.parse(job.program)
        if program is None:
            return Validation(Status.SYNTAX, "not in the grammar")
        outputs = tuple(str(program.output(int(text))) for text in job.inputs)
        return Validation(Status.OK, "", outputs, job.program, tuple(str(int(text)) for text in job.inputs))

    async def verify(self, job: Verify) -> Verdicts:
        self.asked.append(job)
        wanted = ast.literal_eval(job.task.outputs[0])
        return Verdicts(tuple(Verdict(ast.literal_eval(text) == wanted, Status.OK) for text in job.answers))


@pytest.fixture
def triplets() -> PythonTriplets:
    return PythonTriplets(CONFIG)


def test_prompts(triplets: PythonTriplets) -> None:
    assert triplets.solve_prompt(DEDUCTION) == f"solve deduction\n{PROGRAM}\ninput:5\n"
    assert triplets.solve_prompt(ABDUCTION) == f"solve abduction\n{PROGRAM}\noutput:2\n"
    assert triplets.solve_prompt(INDUCTION) == "solve induction\n1->8\n2->9\n"
    one = f"{PROGRAM}\ninput:5\n"
    assert triplets.propose_prompt(TaskType.DEDUCTION, [DEDUCTION]) == f"propose deduction\n{one}"
    assert triplets.propose_prompt(TaskType.ABDUCTION, [ABDUCTION] * 2) == f"propose abduction\n{one}{one}"
    assert triplets.propose_prompt(TaskType.INDUCTION, [INDUCTION]) == f"propose induction\n{PROGRAM}\n"


@pytest.mark.parametrize(
    ("response", "text", "well_formed"),
    [
        ("<answer>3</answer>", "3", True),
        ("<think>b=3</think><answer>3</answer>", "3", True),
        ("<think></think>\n<answer> 3 </answer>\n", "3", True),
        ("<answer>3</answer> and more", "3", False),
        ("so <answer>3</answer>", "3", False),
        ("<think>b=3<answer>3</answer>", "3", False),
        ("<answer>1</answer><answer>3</answer>", "3", False),
        ("<answer><think>no</think>3</answer>", "<think>no</think>3", False),
        ("</think><think><answer>3</answer>", "3", False),
        ("<answer></answer>", "", False),
        ("<answer>3", "", False),
        ("3</answer>", "", False),
        ("3", "", False),
        ("", "", False),
        ("<answer>a<b</answer>", "a<b", True),
    ],
)
def test_tags(response: str, text: str, well_formed: bool) -> None:
    assert read_tags(response) == Answer(text, well_formed)


@settings(max_examples=50)
@given(st.text())
def test_any_response_is_read(response: str) -> None:
    triplets = PythonTriplets(CONFIG)
    for task in TASKS.values():
        triplets.parse_answer(task, response)
        draft = triplets.parse_proposal(task.type, [task], f"<answer>{response}</answer>")
        assert draft is None or (draft.program.strip() and all(draft.inputs))


@given(program=st.text("ab:\n =input", min_size=1), value=st.text("1, []x:", min_size=1))
def test_what_is_written_is_read(program: str, value: str) -> None:
    program, value = program.strip(), value.strip()
    written = Compact().write_proposal(TaskType.DEDUCTION, Proposal(program, (value,)))
    expected = Proposal(program, (value,)) if program and value else None
    assert Compact().read_proposal(TaskType.DEDUCTION, written) == expected


@pytest.mark.parametrize(
    "body",
    [
        "def f(a):\n return a",
        "input:3",
        "\ninput:3",
        "def f(a):\n return a\ninput:",
        "def f(a):\n return a\ninput:3\n4",
    ],
)
def test_proposal_without_program_or_input_has_no_format(triplets: PythonTriplets, body: str) -> None:
    assert triplets.parse_proposal(TaskType.DEDUCTION, [DEDUCTION], f"<answer>{body}</answer>") is None


@pytest.mark.parametrize("body", ["1\n2\n3", "1\n2\n3\n4\n5", "1\n\n2\n3", ""])
def test_induction_proposal_has_the_configured_number_of_inputs(triplets: PythonTriplets, body: str) -> None:
    assert triplets.parse_proposal(TaskType.INDUCTION, [INDUCTION], f"<answer>{body}</answer>") is None


async def test_valid_proposals_become_tasks(triplets: PythonTriplets) -> None:
    executor = GrammarExecutor()
    response = f"<answer>{PROGRAM}\ninput:5</answer>"
    draft = triplets.parse_proposal(TaskType.DEDUCTION, [ABDUCTION], response)
    assert draft == Draft(TaskType.DEDUCTION, PROGRAM, ("5",))
    validated = await triplets.validate(draft, executor)
    key = task_key(TaskType.DEDUCTION, PROGRAM, ("5",))
    assert validated.status == Status.OK
    assert validated.task == Task(TaskType.DEDUCTION, PROGRAM, ("5",), ("2",), key, program_key=PROGRAM)

    draft = triplets.parse_proposal(TaskType.INDUCTION, [INDUCTION], "<answer>4\n3\n2\n1</answer>")
    assert draft == Draft(TaskType.INDUCTION, PROGRAM, ("4", "3", "2", "1"))
    task = (await triplets.validate(draft, executor)).task
    assert task is not None and task.outputs == ("1", "0", "9", "8") and task.shown == 2


async def test_invalid_proposals_say_why(triplets: PythonTriplets) -> None:
    executor = GrammarExecutor()
    broken = await triplets.validate(Draft(TaskType.DEDUCTION, "def g(): pass", ("5",)), executor)
    assert (broken.status, broken.task, broken.detail) == (Status.SYNTAX, None, "not in the grammar")
    by_value = await triplets.validate(Draft(TaskType.INDUCTION, PROGRAM, ("1", "01", "2", "3")), executor)
    assert (by_value.status, by_value.task) == (Status.INPUT, None)
    asked = len(executor.asked)
    by_text = await triplets.validate(Draft(TaskType.INDUCTION, PROGRAM, ("1", "1", "2", "3")), executor)
    assert (by_text.status, by_text.task) == (Status.INPUT, None)
    shown = await triplets.validate(Draft(TaskType.INDUCTION, PROGRAM, ("1", "2")), executor)
    assert (shown.status, shown.detail) == (Status.INPUT, "no input is hidden: 2 are shown")
    assert len(executor.asked) == asked  # no execution is spent on either


async def test_what_needs_no_thought_is_no_task(triplets: PythonTriplets) -> None:
    lax = PythonTriplets(dataclasses.replace(CONFIG, reject_identity=False, reject_constant=False))
    for program, status, inputs in (
        (IDENTITY, Status.IDENTITY, ("1", "2", "3", "4")),
        (CONSTANT, Status.CONSTANT, ("1", "2", "3", "4")),
        (CONSTANT, Status.CONSTANT, ("7",)),
    ):
        task_type = TaskType.DEDUCTION if len(inputs) == 1 else TaskType.INDUCTION
        draft = Draft(task_type, program, inputs)
        validated = await triplets.validate(draft, GrammarExecutor())
        assert (validated.status, validated.task) == (status, None) and validated.detail
        assert (await lax.validate(draft, GrammarExecutor())).task is not None
        identities = PythonTriplets(dataclasses.replace(CONFIG, reject_constant=False))
        constants = PythonTriplets(dataclasses.replace(CONFIG, reject_identity=False))
        for one, rule in ((identities, Status.IDENTITY), (constants, Status.CONSTANT)):
            assert (await one.validate(draft, GrammarExecutor())).status == (rule if rule is status else Status.OK)


async def test_only_valid_proposals_are_probed(triplets: PythonTriplets) -> None:
    executor = GrammarExecutor()
    await triplets.validate(Draft(TaskType.DEDUCTION, "def g(): pass", ("5",)), executor)
    assert executor.asked == [Validate("def g(): pass", ("5",))]


async def test_answers_are_judged_once_each_and_in_order(triplets: PythonTriplets) -> None:
    executor = GrammarExecutor()
    answers = [Answer("2", True), Answer("", False), Answer("3", True), Answer("2", False)]
    verdicts = await triplets.verify(DEDUCTION, answers, executor)
    assert executor.asked == [Verify(DEDUCTION, ("2", "3"))]
    assert [verdict.correct for verdict in verdicts] == [True, False, False, True]
    assert [verdict.status for verdict in verdicts] == [Status.OK, Status.FORMAT, Status.OK, Status.OK]


async def test_nothing_to_judge_asks_nothing(triplets: PythonTriplets) -> None:
    executor = GrammarExecutor()
    (verdict,) = await triplets.verify(DEDUCTION, [Answer("", False)], executor)
    assert verdict.status == Status.FORMAT and not executor.asked


def test_identity_is_solvable(triplets: PythonTriplets) -> None:
    lax = PythonTriplets(dataclasses.replace(CONFIG, reject_identity=False, reject_constant=False))
    for task_type in TASK_TYPES:
        task = triplets.identity(task_type)
        validated = asyncio.run(lax.validate(Draft(task_type, IDENTITY, task.inputs), GrammarExecutor()))
        assert validated.task is not None
        assert validated.task.outputs == task.outputs and validated.task.shown == task.shown
        assert triplets.solve_prompt(task)


def test_task_key_ignores_the_order_of_inputs() -> None:
    key = task_key(TaskType.INDUCTION, "p", ("1", "2"))
    assert key == task_key(TaskType.INDUCTION, "p", ("2", "1"))
    others = {
        task_key(TaskType.INDUCTION, "p", ("1", "3")),
        task_key(TaskType.DEDUCTION, "p", ("1", "2")),
        task_key(TaskType.INDUCTION, "q", ("1", "2")),
    }
    assert len(others | {key}) == 4


def test_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=r"no model folder .*absent"):
        Codec(tmp_path / "absent")
    with pytest.raises(PartFailed, match=r"tokenizer\.json is missing"):
        Codec(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"version": "1.0"', encoding="utf-8")
    with pytest.raises(PartFailed, match=r"cannot read .*tokenizer\.json"):
        Codec(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(PartFailed, match=r"tokenizer\.json has no model"):
        Codec(tmp_path)


# -- error deduction ---------------------------------------------------------------------------------------------

FAILING = "def f(a):\n return 1 // a"


class FailingExecutor:
    """Every program divides one by its input."""

    def __init__(self) -> None:
        self.asked: list[Validate | Verify] = []

    async def validate(self, job: Validate) -> Validation:
        self.asked.append(job)
        outputs = tuple("ZeroDivisionError" if text == "0" else "NoError" for text in job.inputs)
        return Validation(Status.OK, "", outputs, job.program, job.inputs)

    async def verify(self, job: Verify) -> Verdicts:
        raise AssertionError("words need no executor")


async def test_an_error_task_asks_for_the_exception(triplets: PythonTriplets) -> None:
    executor = FailingExecutor()
    draft = triplets.parse_proposal(TaskType.ERROR, [], f"<answer>{FAILING}\ninput:0</answer>")
    assert draft == Draft(TaskType.ERROR, FAILING, ("0",))
    task = (await triplets.validate(draft, executor)).task
    key = task_key(TaskType.ERROR, FAILING, ("0",))
    assert task == Task(TaskType.ERROR, FAILING, ("0",), ("ZeroDivisionError",), key, program_key=FAILING)
    assert executor.asked == [Validate(FAILING, ("0",), errors=True)]  # and nothing on other inputs
    assert triplets.propose_prompt(TaskType.ERROR, [task]) == f"propose error\n{FAILING}\ninput:0\n"
    assert triplets.solve_prompt(task) == f"solve error\n{FAILING}\ninput:0\n"


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("ZeroDivisionError", True),
        ("zerodivisionerror", True),
        ("ZeroDivisionError: integer division or modulo by zero", True),
        ("ZeroDivisionError because a is 0", True),
        (" ZeroDivisionError\n", True),
        ("a ZeroDivisionError", False),
        ("ZeroDivisionErrors", False),
        ("ArithmeticError", False),
        ("NoError", False),
        (":", False),
        (": ZeroDivisionError", False),
    ],
)
async def test_an_error_is_told_by_its_first_word(triplets: PythonTriplets, text: str, right: bool) -> None:
    task = Task(TaskType.ERROR, FAILING, ("0",), ("ZeroDivisionError",), "key")
    verdicts = await triplets.verify(task, [Answer(text, True), Answer("", False)], FailingExecutor())
    assert [(verdict.correct, verdict.status) for verdict in verdicts] == [(right, "ok"), (False, "format")]


@pytest.mark.parametrize(
    ("program", "word"),
    [
        ("def f(a): raise KeyError", "raise"),
        ("def f(a): return a # to raise it", "raise"),
        ("def f(a):\n  assert a\n  return a", "assert"),
        ("def f(praise): return praise.raises", ""),
    ],
)
async def test_words_that_an_error_task_must_not_hold(program: str, word: str) -> None:
    triplets = PythonTriplets(dataclasses.replace(CONFIG, error_banned=("raise", "assert")))
    executor = FailingExecutor()
    validated = await triplets.validate(Draft(TaskType.ERROR, program, ("0",)), executor)
    assert validated.status == (Status.POLICY if word else Status.OK) and word in validated.detail
    assert len(executor.asked) == (not word)  # a banned word costs no execution
    plain = EnvironmentConfig(error_banned=("raise", "assert"), reject_identity=False, reject_constant=False)
    other = Draft(TaskType.DEDUCTION, program, ("0",))
    assert (await PythonTriplets(plain).validate(other, FailingExecutor())).status == Status.OK


async def test_nothing_need_be_banned() -> None:
    triplets = PythonTriplets(dataclasses.replace(CONFIG, error_banned=()))
    draft = Draft(TaskType.ERROR, "def f(a): raise KeyError", ("0",))
    assert (await triplets.validate(draft, FailingExecutor())).status == Status.OK
