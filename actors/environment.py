"""What an episode asks of a task environment: prompts, the reading of responses, and judgement by an
executor.

Invariants: no model and no randomness inside; everything that goes in and comes out is frozen; text of a
model is never evaluated here, only passed to the executor. Rewards are not an environment's business. Not
guaranteed: that a draft is a legal task (only `validate` says so), or that a well-formed answer is right.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from common.jobs import Composition, Executor, Verdict
from common.types import Task, TaskType

_TAG, _BREAK = re.compile(r"</?(?:think|answer)>"), "\n"


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposal as the model wrote it: right in form, not validated."""

    type: TaskType
    program: str
    inputs: tuple[str, ...]
    message: str = ""
    composition: Composition | None = None  # what the model wrote of `program`, if the rest was given as components
    composite: bool = False  # whether `program` is an f(g()), proposed now or given
    shown: int = 0  # pairs of an induction task that its solver sees; 0: environment.shown


@dataclass(frozen=True, slots=True)
class Answer:
    """What a solver's response says. `text` is empty when nothing could be extracted.

    `text` may be set although `well_formed` is False: correctness ignores the format, the reward does not.
    """

    text: str
    well_formed: bool


@dataclass(frozen=True, slots=True)
class Validated:
    """`task` is set exactly when `status` is "ok"; otherwise `status` and `detail` say why there is none."""

    status: str
    task: Task | None = None
    detail: str = ""


class Environment(Protocol):
    def identity(self, task_type: TaskType) -> Task:
        """The task every run starts from, its outputs known without an executor."""
        ...

    def propose_prompt(
        self, task_type: TaskType, references: Sequence[Task], components: Sequence[Task] = ()
    ) -> str: ...

    def parse_proposal(
        self, task_type: TaskType, references: Sequence[Task], response: str, components: Sequence[Task] = ()
    ) -> Draft | None:
        """The task that `response` proposes; None if it does not follow the response format."""
        ...

    async def validate(self, draft: Draft, executor: Executor) -> Validated: ...

    def solve_prompt(self, task: Task) -> str: ...

    def parse_answer(self, task: Task, response: str) -> Answer: ...

    async def verify(self, task: Task, answers: Sequence[Answer], executor: Executor) -> tuple[Verdict, ...]:
        """One verdict per answer, in order; status "format" where there is no text to judge."""
        ...


def untagged(prompt: str, response: str) -> str:
    """`response` read whole: what it would be without its tags, as the answer of a well-formed response to `prompt`."""
    ended = "</think>" if prompt.endswith("<think>") else ""
    return f"{ended}<answer>{_TAG.sub(_BREAK, response)}</answer>"


def task_key(task_type: TaskType, program_key: str, input_keys: Sequence[str]) -> str:
    """Identity of a task: its type, its program up to formatting, its inputs as a set of values.

    The order of inputs is left out, so that shuffling the inputs of an induction task does not make a new
    one.
    """
    parts = "\0".join((task_type, program_key, *sorted(input_keys)))
    return hashlib.blake2b(parts.encode(), digest_size=16).hexdigest()
