"""Natural language: what prompts state, and how leniently answers are read."""

from __future__ import annotations

import pytest

from actors.environment import Answer
from actors.paper import BANNED, MODULES, Paper
from actors.wording import Proposal
from common.types import Task, TaskType
from executor import policy

PROGRAM = """\
import math

class Node:
    def get(self):
        return 1

def f(a):
    def g(x):
        return x
    return g(a)"""
DEDUCTION = Task(TaskType.DEDUCTION, PROGRAM, ("5",), ("6",), "key")

ERROR = Task(TaskType.ERROR, PROGRAM, ("5",), ("KeyError",), "key")


def answer(text: str, thought: str = "hm") -> str:
    return f"{thought}</think>\n<answer>{text}</answer>"


def test_prompts_state_the_rules_that_the_executor_enforces() -> None:
    assert set(MODULES) == policy.MODULES
    assert set(BANNED) == {name for name in policy.BANNED_NAMES if not name.startswith("_")}
    paper = Paper()
    pairs = (TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.ERROR)
    prompts = [paper.propose_prompt(task_type, []) for task_type in pairs]
    prompts.append(paper.solve_prompt(Task(TaskType.INDUCTION, PROGRAM, ("1", "2"), ("1", "2"), "", shown=1)))
    for prompt in prompts:
        assert ", ".join(MODULES) in prompt and ", ".join(BANNED) in prompt and "`f`" in prompt


def test_every_prompt_is_a_conversation_that_ends_within_the_thought() -> None:
    paper = Paper(inputs=2, message=True)
    induction = Task(TaskType.INDUCTION, PROGRAM, ("1", "2"), ("1", "2"), "", "hint", 1)
    abduction = Task(TaskType.ABDUCTION, PROGRAM, ("5",), ("6",), "")
    prompts = [paper.propose_prompt(t, [DEDUCTION]) for t in TaskType]
    prompts += [paper.solve_prompt(task) for task in (DEDUCTION, abduction, induction, ERROR)]
    for prompt in prompts:
        assert prompt.endswith("\nAssistant: <think>") and prompt.count("\nUser: ") == 1
        assert "{{" not in prompt and "}}" not in prompt


def test_references_are_numbered_and_whole() -> None:
    prompt = Paper().propose_prompt(TaskType.DEDUCTION, [DEDUCTION, DEDUCTION])
    for number in (1, 2):
        shown = f"Example {number}\n```python\n{PROGRAM}\n```\n```input\n5\n```\n```output\n6\n```"
        assert shown in prompt
    assert "example" not in Paper().propose_prompt(TaskType.DEDUCTION, []).lower()


def test_error_tasks_have_words_of_their_own() -> None:
    paper = Paper(banned=("raise", "assert"))
    prompt = paper.propose_prompt(TaskType.ERROR, [ERROR])
    assert f"```python\n{PROGRAM}\n```\n```input\n5\n```\n```error\nKeyError\n```" in prompt
    assert "hold one of these words: raise, assert.\n" in prompt and "must run on the input" not in prompt
    for task_type in (TaskType.DEDUCTION, TaskType.ABDUCTION):
        other = paper.propose_prompt(task_type, [])
        assert "one of these words" not in other and "must run on the input" in other
    assert "one of these words" not in Paper().propose_prompt(TaskType.ERROR, [])
    assert "NoError" in paper.solve_prompt(ERROR)
    for text in ("```error\nKeyError\n```", "The error is KeyError.", "KeyError", "```\nKeyError\n```"):
        assert paper.read_answer(TaskType.ERROR, answer(text)) == Answer("KeyError", True)


@pytest.mark.parametrize("message", [False, True])
def test_inputs_are_counted_and_a_message_is_asked_for_where_one_is_wanted(message: bool) -> None:
    prompt = Paper(inputs=7, message=message).propose_prompt(TaskType.INDUCTION, [DEDUCTION])
    assert "exactly 7 different inputs" in prompt and "7 blocks `input`" in prompt
    assert ("message" in prompt) is message
    task = Task(TaskType.INDUCTION, PROGRAM, ("1", "2"), ("3", "4"), "", "what it is" if message else "", 1)
    assert ("```message\nwhat it is\n```" in Paper(2, message).solve_prompt(task)) is message


def test_blocks_of_a_proposal_come_in_any_order_and_others_are_ignored() -> None:
    response = answer(f"Look:\n```input\n5\n```\n```output\n7\n```\n```python\n{PROGRAM}\n```\nDone.")
    assert Paper().read_proposal(TaskType.DEDUCTION, response) == Proposal(PROGRAM, ("5",))


@pytest.mark.parametrize(
    "body",
    [
        "def f(a): return a\n5",
        "```python\ndef f(a): return a\n```\n5",
        "```\ndef f(a): return a\n```\n```input\n5\n```",
        "```python\ndef f(a): return a\n```\n```input\n5\n",
        "```python\n\n```\n```python\ndef f(a): return a\n```\n```input\n5\n```",
    ],
)
def test_a_proposal_has_a_program_and_an_input(body: str) -> None:
    assert Paper().read_proposal(TaskType.DEDUCTION, answer(body)) is None


def test_of_several_blocks_the_first_counts_and_of_too_many_inputs_the_last() -> None:
    programs = f"```python\n{PROGRAM}\n```\n```python\nf(5)\n```\n"
    inputs = "".join(f"```input\n{n}\n```\n" for n in (5, 6, 7))
    assert Paper().read_proposal(TaskType.DEDUCTION, answer(programs + inputs)) == Proposal(PROGRAM, ("5",))
    messages = "```message\nsay it\n```\n```message\nagain\n```"
    read = Paper(2, message=True).read_proposal
    assert read(TaskType.INDUCTION, answer(inputs + messages)) == Proposal("", ("6", "7"), "say it")


def test_an_input_may_take_several_lines() -> None:
    given = "{\n    'a': [1,\n          2],\n},\n'b'"
    proposal = answer(f"```python\n{PROGRAM}\n```\n```input\n{given}\n```")
    assert Paper().read_proposal(TaskType.ABDUCTION, proposal) == Proposal(PROGRAM, (given,))
    assert Paper().read_answer(TaskType.ABDUCTION, answer(f"```input\n{given}\n```")) == Answer(given, True)


def test_the_message_needs_a_block_and_is_left_out_where_none_is_wanted() -> None:
    inputs = "```input\n1\n```\n```input\n2\n```\n"
    with_message = answer(f"{inputs}```message\nsay it\n```")
    read = Paper(2, message=True).read_proposal
    assert read(TaskType.INDUCTION, with_message) == Proposal("", ("1", "2"), "say it")
    assert read(TaskType.INDUCTION, answer(inputs)) is None
    assert Paper(2).read_proposal(TaskType.INDUCTION, with_message) == Proposal("", ("1", "2"))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("so\n```output\n[1, 2]\n```\nright", "[1, 2]"),
        ("```output\n1\n```\n```output\n2\n```", "2"),
        ("```output\n1\n```\n# Output: 2", "1"),
        ("```\n3\n```", "3"),
        ("```python\n3\n```", "3"),
        ("```output 3```", "3"),
        ("```output\n'a'```", "'a'"),
        ("# Output: 1\n# output: (2,\n", "(2,"),
        ("# Output:\n{'a': 1}", "{'a': 1}"),
        ("# Output: 3\noutput(4)", "3"),
        ("it is output(4) and not output((5))", "4) and not output((5)"),
        ("output(4)\noutput((5, 6))", "(5, 6)"),
        ("<output>4</output> or <output>\n5\n</output>", "5"),
        ("<output>4", "4"),
        ("The output is 5.", "5"),
        ("the output is: `[1]`.", "[1]"),
        ("the output is 1\nThe output is 'x'", "'x'"),
        ("'just that'", "'just that'"),
        ("(1,\n 2)", "(1,\n 2)"),
    ],
)
def test_outputs_are_found_in_the_official_order(text: str, found: str) -> None:
    assert Paper().read_answer(TaskType.DEDUCTION, answer(text)) == Answer(found, True)
    swapped = text.replace("output", "input").replace("Output", "Input")
    assert Paper().read_answer(TaskType.ABDUCTION, answer(swapped)) == Answer(found.replace("output", "input"), True)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```python\nold\n```\nbetter:\n```python\ndef f(a):\n    return a\n```", "def f(a):\n    return a"),
        ("```py\ndef f(a): return a\n```\ntested with\n```input\n5\n```", "def f(a): return a"),
        ("```\ndef f(a): return a\n```", "def f(a): return a"),
        ("def f(a):\n    # python: fine\n    return a", "def f(a):\n    # python: fine\n    return a"),
    ],
)
def test_programs_are_the_last_block(text: str, found: str) -> None:
    assert Paper().read_answer(TaskType.INDUCTION, answer(text)) == Answer(found, True)


@pytest.mark.parametrize(
    ("response", "text", "well_formed"),
    [
        ("thought</think><answer>5</answer>", "5", True),
        ("</think>\n<answer>5</answer>\n", "5", True),
        ("<answer>5</answer>", "5", False),  # the thought was never ended
        ("<think>again</think><answer>5</answer>", "5", False),
        ("a</think>b<answer>5</answer>", "5", False),
        ("a</think><answer>4</answer><answer>5</answer>", "5", False),
        ("a</think><answer>5</answer>\nUser: next\nAssistant: <think>b", "5", False),
        ("a</think><answer> </answer>", "", False),
        ("a</think>5", "", False),
    ],
)
def test_format(response: str, text: str, well_formed: bool) -> None:
    assert Paper().read_answer(TaskType.DEDUCTION, response) == Answer(text, well_formed)
