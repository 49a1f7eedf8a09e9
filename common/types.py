"""The records that actors, learner and executor exchange. Frozen, without behaviour beyond derived properties.

Words follow docs/design.md: *kind*, *lease*, *group*, *version*, *staleness*. Arrays are numpy, one-dimensional and
little-endian on the wire; nothing here knows torch, vLLM or ZeroMQ.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np

# Spelt out, for the wire reads them as types: numpy's NDArray is no plain alias of this from 2.5 on.
Int32Array = np.ndarray[tuple[Any, ...], np.dtype[np.int32]]
Float32Array = np.ndarray[tuple[Any, ...], np.dtype[np.float32]]


class TaskType(StrEnum):
    """The questions asked of a triplet (program, input, output)."""

    DEDUCTION = "deduction"
    ABDUCTION = "abduction"
    INDUCTION = "induction"
    ERROR = "error"  # deduction of the exception that is raised; only with algorithm.error


TASK_TYPES = (TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.INDUCTION)  # those of every run
NO_ERROR = "NoError"  # the output of an error task whose program raises nothing


class Kind(StrEnum):
    """What a lease asks for. All but the last two are also the streams whose advantages are whitened apart (TRR++)."""

    PROPOSE_DEDUCTION = "propose/deduction"
    PROPOSE_ABDUCTION = "propose/abduction"
    PROPOSE_INDUCTION = "propose/induction"
    PROPOSE_ERROR = "propose/error"
    SOLVE_DEDUCTION = "solve/deduction"
    SOLVE_ABDUCTION = "solve/abduction"
    SOLVE_INDUCTION = "solve/induction"
    SOLVE_ERROR = "solve/error"
    SEED = "seed"
    EVAL = "eval"

    @property
    def proposes(self) -> bool:
        return self.value.startswith("propose/")

    @property
    def task_type(self) -> TaskType:
        """The task type of a trained kind; ValueError for seed and eval, whose lease carries it in its task."""
        return TaskType(self.value.partition("/")[2])


STREAMS: tuple[Kind, ...] = tuple(kind for kind in Kind if "/" in kind.value)


def propose(task_type: TaskType) -> Kind:
    return Kind(f"propose/{task_type}")


def solve(task_type: TaskType) -> Kind:
    return Kind(f"solve/{task_type}")


class Status(StrEnum):
    """What became of a program, an input or an answer. Everything but OK says why there is no value.

    `crash_N` (killed by signal N) is open-ended and therefore carried as a plain string beside these.
    """

    OK = "ok"
    FORMAT = "format"  # the model's text could not be parsed into program, input or answer
    SYNTAX = "syntax"
    POLICY = "policy"
    INPUT = "input"
    ERROR = "error"
    EXIT = "exit"
    EXITED = "exited"
    NONDETERMINISTIC = "nondeterministic"
    TIMEOUT_CPU = "timeout_cpu"
    TIMEOUT_WALL = "timeout_wall"
    MEMORY = "memory"
    TOO_BIG = "too_big"
    UNSERIALISABLE = "unserialisable"
    VIOLATION = "violation"
    PROTOCOL = "protocol"
    FLOOD = "flood"
    CHECKER_CRASH = "checker_crash"
    POISON = "poison"
    KNOWN = "known"  # a proposal that the task book holds
    COPY = "copy"  # a proposal that an earlier lease of its batch has made
    HELD_OUT = "heldout"  # a proposal of a program that evaluation keeps for itself
    IDENTITY = "identity"  # a proposal that returns its input
    CONSTANT = "constant"  # a proposal whose output does not depend on its input
    COMPOSITION = "composition"  # a composite proposal that does not call a component, or binds its name again
    FLAGGED = "flagged"  # a valid proposal that safety.on_flag keeps out of the book
    INFRA = "infra"  # a part of the system failed: says nothing about the program, never scored


@dataclass(frozen=True, slots=True)
class Task:
    """A validated triplet, as the solver will meet it.

    `inputs` are argument lists as source text ("1, [2, 3]"), `outputs` canonical value texts, pairwise; the output of
    an error task is the class name of the exception, or NoError. Induction shows the first `shown` pairs and hides the
    rest; the others have exactly one pair.
    `key` identifies the task up to formatting, `program_key` its program; the executor's checker computed them.
    """

    type: TaskType
    program: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    key: str
    message: str = ""
    shown: int = 0
    program_key: str = ""
    composite: bool = False  # its program is an f(g()), and no component of others


@dataclass(frozen=True, slots=True)
class Lease:
    """Leave to make one group, with all it needs. Equal (id, seed) and version mean equal material."""

    id: int
    attempt: int
    kind: Kind
    version: int  # weights version in force when it was granted
    seed: int  # 63-bit; every random choice of the episode derives from it
    samples: int  # answers per task: n of a proposal, m of a book task
    references: tuple[Task, ...] = ()  # shown to a proposer
    task: Task | None = None  # asked of a solver
    temperature: float = 1.0
    components: tuple[Task, ...] = ()  # whose programs the f of a proposer must call
    begun: str = ""  # what an answer begins with: it ends the prompt, and is read as if the model had written it


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens [start, end) of an answer were sampled by weights `version`."""

    version: int
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Sample:
    """One sampled sequence: an answer to a prompt of its group, with what the behaviour policy thought of it."""

    stream: Kind
    prompt: int  # index into Group.prompts
    tokens: Int32Array  # [T], the stop token included
    logprobs: Float32Array  # [T], of the behaviour policy at its temperature
    spans: tuple[Span, ...]
    reward: float
    correct: bool  # feeds solve rates; ignores the format check
    status: str  # a Status value or crash_N
    trainable: bool = True


@dataclass(frozen=True, slots=True)
class Flag:
    """A thought that the safety monitor wants a person to see: `rule` matched the response of `sample`."""

    sample: int  # index into Group.samples
    rule: str
    prompt: str
    response: str


@dataclass(frozen=True, slots=True, eq=False)
class Group:
    """What one lease yields; the unit of transport, admission, dropping and counting.

    `failure` is empty for a complete group; otherwise it names why there is none (`infra`, `nonfinite`, …) and the
    slot goes back to the lease's kind.
    """

    lease: int
    attempt: int
    kind: Kind
    incarnation: int
    prompts: tuple[Int32Array, ...] = ()
    samples: tuple[Sample, ...] = ()
    proposal: Task | None = None  # set when a proposal was valid
    solve_rate: float | None = None  # mean `correct` over the n answers, if a task was solved
    failure: str = ""
    flags: tuple[Flag, ...] = ()
    references: tuple[str, ...] = ()  # keys of the tasks that the proposer was shown
    asked: str = ""  # key of the task of the book that a solver was given

    @property
    def oldest_version(self) -> int | None:
        return min((span.version for s in self.samples for span in s.spans), default=None)

    @property
    def newest_version(self) -> int | None:
        return max((span.version for s in self.samples for span in s.spans), default=None)


@dataclass(frozen=True, slots=True, eq=False)
class MicroBatch:
    """Sequences that go through the model together.

    `tokens` concatenates prompt + answer of each sequence; the loss of sequence i is
    weights[i] · Σ_t loss_t over its answer tokens, so summing all micro-batches of all ranks gives the batch loss.
    """

    tokens: Int32Array  # [Σ(prompt + answer)]
    prompt_lengths: Int32Array  # [S]
    answer_lengths: Int32Array  # [S]
    logprobs: Float32Array  # [Σ answer], behaviour policy
    staleness: Int32Array  # [Σ answer], learner step − version that sampled the token
    advantages: Float32Array  # [S]
    weights: Float32Array  # [S]
    rows: Int32Array  # [R], sequences in each row of the model's input, Σ = S; of one prompt, unless rows are packed


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """What one trainer rank trains in one step. Ranks get equal counts of micro-batches; padding ones are empty."""

    step: int
    micro_batches: tuple[MicroBatch, ...] = field(default=())
    updates: tuple[int, ...] = field(default=())  # micro-batches of each optimiser step, in order; empty: one for all
