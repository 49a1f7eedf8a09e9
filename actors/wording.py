"""How tasks are put into words and how responses are read: the text of prompts and the grammar of responses.

A wording knows nothing of executors, configuration or what makes a task legal; the logic behind it
(`triplets.py`) is the same for every wording. `Compact` also writes responses, so that text to pre-train on
has exactly the form that is read here: reading what was written gives back what was meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.environment import Answer
from common.types import Task, TaskType

_MARKER = re.compile(r"(</?(?:think|answer)>)")
_PLAIN = ["<answer>", "</answer>"]
_THOUGHT = ["<think>", "</think>", *_PLAIN]


@dataclass(frozen=True, slots=True)
class Proposal:
    """The fields of a proposing response. `program` is empty where the wording does not ask for one
    (induction).
    """

    program: str
    inputs: tuple[str, ...]
    message: str = ""


class Wording(Protocol):
    def propose_prompt(self, task_type: TaskType, references: Sequence[Task]) -> str: ...

    def read_proposal(self, task_type: TaskType, response: str) -> Proposal | None: ...

    def solve_prompt(self, task: Task) -> str: ...

    def read_answer(self, task_type: TaskType, response: str) -> Answer: ...


class Compact:
    """A few tokens per prompt, for models of well under a million parameters. There are no messages.

    A response is `<think>…</think><answer>…</answer>`, the thought optional, nothing around it. Inputs and
    outputs take one line each.
    """

    def propose_prompt(self, task_type: TaskType, references: Sequence[Task]) -> str:
        """Induction shows the one program that inputs are wanted for; the others show whole references."""
        if task_type is TaskType.INDUCTION:
            return f"propose induction\n{references[0].program}\n"
        shown = "".join(f"{task.program}\ninput:{task.inputs[0]}\n" for task in references)
        return f"propose {task_type}\n{shown}"

    def read_proposal(self, task_type: TaskType, response: str) -> Proposal | None:
        answer = read_tags(response)
        if not answer.well_formed:
            return None
        if task_type is TaskType.INDUCTION:
            lines = tuple(line.strip() for line in answer.text.split("\n"))
            return Proposal("", lines) if all(lines) else None
        program, found, given = answer.text.rpartition("\ninput:")
        if not found or not program.strip() or not given.strip() or "\n" in given:
            return None
        return Proposal(program, (given.strip(),))

    def solve_prompt(self, task: Task) -> str:
        match task.type:
            case TaskType.DEDUCTION:
                return f"solve deduction\n{task.program}\ninput:{task.inputs[0]}\n"
            case TaskType.ABDUCTION:
                return f"solve abduction\n{task.program}\noutput:{task.outputs[0]}\n"
            case TaskType.INDUCTION:
                pairs = zip(task.inputs[: task.shown], task.outputs[: task.shown], strict=True)
                return "solve induction\n" + "".join(f"{given}->{output}\n" for given, output in pairs)

    def read_answer(self, task_type: TaskType, response: str) -> Answer:
        return read_tags(response)

    def write_proposal(self, task_type: TaskType, proposal: Proposal) -> str:
        if task_type is TaskType.INDUCTION:
            return self.write_answer("\n".join(proposal.inputs))
        return self.write_answer(f"{proposal.program}\ninput:{proposal.inputs[0]}")

    def write_answer(self, text: str, thought: str = "") -> str:
        return f"<think>{thought}</think><answer>{text}</answer>" if thought else f"<answer>{text}</answer>"


def read_tags(response: str) -> Answer:
    """The text between the last `<answer>` and the `</answer>` after it, stripped.

    Well-formed: not empty, and the markers are exactly `[<think> </think>] <answer> </answer>` in this order,
    with nothing but white space outside them.
    """
    _, opened, rest = response.rpartition("<answer>")
    inner, closed, _ = rest.partition("</answer>")
    text = inner.strip() if opened and closed else ""
    pieces = _MARKER.split(response)
    markers, outside = pieces[1::2], pieces[::4]  # outside: before, between and after the pairs of markers
    blank = not any(piece.strip() for piece in outside)
    return Answer(text, bool(text) and blank and markers in (_PLAIN, _THOUGHT))
