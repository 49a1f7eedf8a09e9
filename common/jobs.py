"""What is asked of the executor and what it answers.

Every text here may come from a model: nothing outside the sandbox parses, evaluates or compares it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from common.types import Task


@dataclass(frozen=True, slots=True)
class Composition:
    """What a composite program must do besides: the f of `own`, the text behind the components, calls all
    `components`, by name, and nothing in it binds one of them.
    """

    own: str
    components: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Validate:
    """Is this program legal, deterministic and defined on all these inputs? One execution job, all inputs in it.

    `errors`: an exception is an outcome, too. The output of an input is then the class name of the exception that the
    program raises, or NoError.
    """

    program: str
    inputs: tuple[str, ...]
    errors: bool = False
    composition: Composition | None = None


@dataclass(frozen=True, slots=True)
class Validation:
    """`outputs` (canonical texts) and the normal forms are set only when `status` is "ok"."""

    status: str
    detail: str = ""
    outputs: tuple[str, ...] = ()
    program_key: str = ""  # digest of the program's syntax tree: equal up to comments, spacing and docstrings
    input_keys: tuple[str, ...] = ()  # digests of the input values


@dataclass(frozen=True, slots=True)
class Verify:
    """Are these answers to `task` right? All answers of a group travel together.

    Deduction: an answer is a literal, compared by value with the output and never executed. Abduction: an answer is
    an argument list; right if the program maps it to the output. Induction: an answer is a program; right if it maps
    every hidden input to its output. Error answers are words, which nobody has to execute: they are not asked here.
    """

    task: Task
    answers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`correct` is only ever true with status "ok"; status "infra" says nothing about the answer."""

    correct: bool
    status: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Verdicts:
    """One verdict per answer, in the order asked."""

    verdicts: tuple[Verdict, ...]


class Executor(Protocol):
    """What an episode sees of the executor pool. Failure of the pool itself is a status, never an exception."""

    async def validate(self, job: Validate) -> Validation: ...

    async def verify(self, job: Verify) -> Verdicts: ...
