"""How tasks are put into words and how responses are read: what the two styles, `compact.py` and `paper.py`, share.

A wording knows nothing of executors, configuration or what makes a task legal; the logic behind it (`triplets.py`) is
the same for every wording. A wording also writes responses, which documents the form that it reads and makes text to
pre-train on.

Invariants of every wording: reading what was written gives back what was meant; any text can be read, in time linear
in its length; a prompt shows neither the answer nor the hidden pairs of a task. Not guaranteed: that what was read is
legal.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors.environment import Answer
from common.types import Task, TaskType

IDENTITY = "def f(a):\n return a"
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
    def identity(self, task_type: TaskType) -> Proposal:
        """The identity function on values that are their own canonical text, so the outputs are the inputs; it raises
        nothing."""
        ...

    def propose_prompt(self, task_type: TaskType, references: Sequence[Task], components: Sequence[str] = ()) -> str:
        """Induction needs one reference, whose program inputs are wanted for; the others show any number, and the texts
        of `components` (composite.py), which the program has to call and the response does not repeat.
        """
        ...

    def read_proposal(self, task_type: TaskType, response: str) -> Proposal | None:
        """None if `response` does not follow the format. It may hold too few inputs; of too many a wording may leave
        out the first."""
        ...

    def solve_prompt(self, task: Task) -> str: ...

    def read_answer(self, task_type: TaskType, response: str) -> Answer: ...

    def write_proposal(self, task_type: TaskType, proposal: Proposal) -> str:
        """A response that `read_proposal` reads as `proposal`."""
        ...

    def write_solution(self, task_type: TaskType, text: str, thought: str = "") -> str:
        """A well-formed response that `read_answer` reads as `text`."""
        ...


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
