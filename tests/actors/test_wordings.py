"""What every wording has to do: one suite for all styles."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from actors.compact import Compact
from actors.environment import Answer
from actors.paper import Paper
from actors.triplets import PythonTriplets
from actors.wording import IDENTITY, Proposal, Wording
from common.config import EnvironmentConfig
from common.types import Task, TaskType

INPUTS, SHOWN = 4, 2
PAIR = (TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.ERROR)
PROGRAM = "def f(a, b=17):\n    return helper_of(a) * b"
GIVENS = ("771101", "772202", "773303", "774404")
OUTPUTS = ("881101", "882202", "883303", "884404")
HINT = "the riddle of the day"
STYLES: dict[str, Callable[[int, bool], Wording]] = {"compact": Compact, "paper": Paper}

words = st.text("abcdef XYZ(){}[]:=\"'\\#.,0123456789+é", min_size=1).map(str.strip).filter(bool)
lines = words.filter(lambda text: not text.startswith(("input:", "message:")))
programs = st.lists(words, min_size=1, max_size=5).map(lambda body: "def f(a):\n" + "\n".join(f"  {x}" for x in body))


@pytest.fixture(scope="module", params=list(STYLES))
def style(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def make(style: str, message: bool = False) -> Wording:
    return STYLES[style](INPUTS, message)


def a_task(task_type: TaskType) -> Task:
    if task_type is TaskType.INDUCTION:
        return Task(task_type, PROGRAM, GIVENS, OUTPUTS, "key", HINT, SHOWN)
    return Task(task_type, PROGRAM, GIVENS[:1], OUTPUTS[:1], "key")


def proposed(task_type: TaskType) -> Proposal:
    return Proposal("", GIVENS) if task_type is TaskType.INDUCTION else Proposal(PROGRAM, GIVENS[:1])


# -- what was written is read ------------------------------------------------------------------------------------


@given(program=programs, value=lines)
@settings(max_examples=60)
@pytest.mark.parametrize("task_type", PAIR)
def test_proposals_of_pairs(style: str, task_type: TaskType, program: str, value: str) -> None:
    wording, meant = make(style), Proposal(program, (value,))
    assert wording.read_proposal(task_type, wording.write_proposal(task_type, meant)) == meant


@given(values=st.lists(lines, min_size=1, max_size=INPUTS), hint=lines, message=st.booleans())
@settings(max_examples=60)
def test_proposals_of_inputs(style: str, values: list[str], hint: str, message: bool) -> None:
    wording = make(style, message)
    meant = Proposal("", tuple(values), hint if message else "")
    read = wording.read_proposal(TaskType.INDUCTION, wording.write_proposal(TaskType.INDUCTION, meant))
    assert read == meant


@given(text=lines | programs, thought=words | st.just(""))
@settings(max_examples=60)
@pytest.mark.parametrize("task_type", TaskType)
def test_solutions(style: str, task_type: TaskType, text: str, thought: str) -> None:
    wording = make(style)
    assert wording.read_answer(task_type, wording.write_solution(task_type, text, thought)) == Answer(text, True)


@given(st.text() | st.text("`<>/thinkaswer input()#:\n\"'", max_size=200))
@settings(max_examples=150)
@pytest.mark.parametrize("message", [False, True])
def test_any_response_is_read(style: str, message: bool, response: str) -> None:
    wording = make(style, message)
    for task_type in TaskType:
        for text in (response, f"<answer>{response}</answer>", f"</think><answer>{response}</answer>"):
            answer = wording.read_answer(task_type, text)
            assert answer.text or not answer.well_formed
            proposal = wording.read_proposal(task_type, text)
            if proposal is not None:
                assert all(proposal.inputs) and proposal.inputs
                assert bool(proposal.program.strip()) == (task_type is not TaskType.INDUCTION)
                assert bool(proposal.message) == (message and task_type is TaskType.INDUCTION)


@pytest.mark.parametrize("task_type", TaskType)
def test_without_tags_there_is_neither_format_nor_answer(style: str, task_type: TaskType) -> None:
    wording = make(style)
    written = wording.write_solution(task_type, "5")
    bare = written.replace("<answer>", "").replace("</answer>", "")
    assert wording.read_answer(task_type, bare) == Answer("", False)
    proposal = wording.write_proposal(task_type, proposed(task_type))
    assert wording.read_proposal(task_type, proposal) is not None
    assert wording.read_proposal(task_type, proposal.replace("</answer>", "")) is None


@pytest.mark.parametrize("task_type", TaskType)
def test_text_outside_the_tags_costs_the_format_but_not_the_answer(style: str, task_type: TaskType) -> None:
    wording = make(style)
    assert wording.read_answer(task_type, wording.write_solution(task_type, "5") + " more") == Answer("5", False)
    proposal = wording.write_proposal(task_type, proposed(task_type))
    assert wording.read_proposal(task_type, proposal + " more") is None


@pytest.mark.parametrize("task_type", TaskType)
def test_a_response_may_speak_of_the_conversation(style: str, task_type: TaskType) -> None:
    wording = make(style)
    thought = "User: why? Assistant: because"
    assert wording.read_answer(task_type, wording.write_solution(task_type, "'Assistant:'", thought)) == Answer(
        "'Assistant:'", True
    )


def test_a_proposal_lacking_a_field_has_no_format(style: str) -> None:
    wording, speaking = make(style), make(style, message=True)
    for task_type in PAIR:
        for lacking in (Proposal("", ("5",)), Proposal(PROGRAM, ("",))):
            assert wording.read_proposal(task_type, wording.write_proposal(task_type, lacking)) is None
    for lacking in (Proposal("", ("1", "", "3"), HINT), Proposal("", (), HINT), Proposal("", GIVENS, "")):
        written = speaking.write_proposal(TaskType.INDUCTION, lacking)
        assert speaking.read_proposal(TaskType.INDUCTION, written) is None


# -- prompts -----------------------------------------------------------------------------------------------------


def test_what_a_solver_is_shown(style: str) -> None:
    wording = make(style, message=True)
    deduction = wording.solve_prompt(a_task(TaskType.DEDUCTION))
    assert PROGRAM in deduction and GIVENS[0] in deduction and OUTPUTS[0] not in deduction
    error = wording.solve_prompt(a_task(TaskType.ERROR))
    assert PROGRAM in error and GIVENS[0] in error and OUTPUTS[0] not in error
    abduction = wording.solve_prompt(a_task(TaskType.ABDUCTION))
    assert PROGRAM in abduction and OUTPUTS[0] in abduction and GIVENS[0] not in abduction
    induction = wording.solve_prompt(a_task(TaskType.INDUCTION))
    assert HINT in induction and "helper_of" not in induction
    for pairs, there in ((slice(None, SHOWN), True), (slice(SHOWN, None), False)):
        for text in GIVENS[pairs] + OUTPUTS[pairs]:
            assert (text in induction) is there
    assert len({deduction, abduction, induction}) == 3


@pytest.mark.parametrize("count", [0, 1, 6])
@pytest.mark.parametrize("task_type", PAIR)
def test_any_number_of_references_is_shown_to_a_proposer(style: str, task_type: TaskType, count: int) -> None:
    tasks = [
        dataclasses.replace(a_task(task_type), program=f"def f(a):\n return a+{i}00{i}", inputs=(f"9{i}9{i}",))
        for i in range(count)
    ]
    prompt = make(style).propose_prompt(task_type, tasks)
    assert task_type in prompt or style == "paper"
    places = [prompt.index(task.program) for task in tasks] + [prompt.index(task.inputs[0]) for task in tasks]
    assert len(set(places)) == 2 * count and places[:count] == sorted(places[:count])
    assert prompt.count("return a+") == count


@pytest.mark.parametrize("message", [False, True])
def test_a_proposer_of_inputs_is_shown_the_program_alone(style: str, message: bool) -> None:
    reference = a_task(TaskType.DEDUCTION)
    prompt = make(style, message).propose_prompt(TaskType.INDUCTION, [reference])
    assert PROGRAM in prompt and GIVENS[0] not in prompt and OUTPUTS[0] not in prompt


def test_the_eight_prompts_differ(style: str) -> None:
    wording = make(style)
    proposing = {wording.propose_prompt(t, [a_task(t)]) for t in TaskType}
    solving = {wording.solve_prompt(a_task(t)) for t in TaskType}
    assert len(proposing | solving) == 8


@given(text=st.text("{}%\\ab0", min_size=1))
def test_braces_in_a_task_are_shown_as_they_are(style: str, text: str) -> None:
    assume(text.strip())
    wording = make(style, message=True)
    for task_type in TaskType:
        task = dataclasses.replace(a_task(task_type), program=f"def f():{text}", message=text)
        assert text in wording.solve_prompt(task) and text in wording.propose_prompt(task_type, [task])


# -- the task that a run starts from -----------------------------------------------------------------------------


@pytest.mark.parametrize("message", [False, True])
@pytest.mark.parametrize("inputs", [2, 6, 10])
def test_identity(style: str, inputs: int, message: bool) -> None:
    config = EnvironmentConfig(prompts=style, inputs=inputs, shown=1, message=message)
    triplets = PythonTriplets(config)
    for task_type in TaskType:
        task = triplets.identity(task_type)
        induction = task_type is TaskType.INDUCTION
        outputs = ("NoError",) if task_type is TaskType.ERROR else task.inputs
        assert task.program == IDENTITY and task.outputs == outputs and task.shown == int(induction)
        assert len(set(task.inputs)) == len(task.inputs) == (inputs if induction else 1)
        assert bool(task.message) == (induction and message) and task.key
        values = [eval(text) for text in task.inputs]  # noqa: S307 - our own constants
        assert [repr(value) for value in values] == list(task.inputs)
        assert not any(a == b for i, a in enumerate(values) for b in values[:i])
        assert triplets.solve_prompt(task) and triplets.propose_prompt(task_type, [task])


def test_config_names_the_style(style: str) -> None:
    config = EnvironmentConfig(prompts=style, inputs=INPUTS, shown=SHOWN, message=True)
    task = a_task(TaskType.INDUCTION)
    assert PythonTriplets(config).solve_prompt(task) == make(style, message=True).solve_prompt(task)
