"""Intrinsic rewards: what a proposal is paid besides learnability (Absolute Zero, appendix; all off by default).

A term is min(coefficient · x, limit) with x one of

    complexity        cognitive complexity / 15
    halstead          0.5 · min(effort / 10⁴, 1) + 0.3 · min(cyclomatic / 10, 1) + 0.2 · min(volume / 500, 1)
    edit_distance     mean distance of the syntax tree to those of the references
    answer_diversity  1 − p(answer), answer: the output (deduction, error), the input (abduction), of all in the book
    input_diversity   the same, mean over the inputs of an induction task
    output_diversity  the same, mean over its outputs

and counts only where learnability is above 0. The paper found no gain from any of them, plain sum the most stable.
Hierarchical diversity is the mean of 1 − p(type) and 1 − p(value within its type). The first three are about a program,
so an induction proposal, whose program was given, and a composite, most of which was, have none of them.

Invariants: a pure function of the proposal, its references and the counts before its batch, so a replayed batch is paid
the same. Nothing is run; while a term is on, the texts of valid tasks are parsed in the intake, which the executor's
checker has parsed before. What measures programs is handed in where one of their terms is on, and its libraries are
loaded nowhere else. Not guaranteed: figures of programs beyond the limits of `learner/program.py`, whose terms are left
out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Protocol

from common.config import IntrinsicConfig
from common.types import Task, TaskType
from learner.literals import argument_types

if TYPE_CHECKING:
    from learner.program import Program

_OF_PROGRAM = ("complexity", "halstead", "edit_distance")
_DIVERSITY = ("answer_diversity", "input_diversity", "output_diversity")
TERMS = (*_OF_PROGRAM, *_DIVERSITY)


class Programs(Protocol):
    """What `learner/program.py` knows of programs; the module itself is one."""

    def measure(self, source: str) -> Program | None: ...

    def distance(self, one: Program, other: Program) -> float: ...


def pays(config: IntrinsicConfig) -> bool:
    """Whether any term is on."""
    return any(getattr(config, name) for name in TERMS)


def measures(config: IntrinsicConfig) -> bool:
    """Whether a term is on that needs figures of programs."""
    return any(getattr(config, name) for name in _OF_PROGRAM)


def counts(config: IntrinsicConfig) -> bool:
    """Whether a term is on that needs to know what was seen."""
    return any(getattr(config, name) for name in _DIVERSITY)


@dataclass(slots=True)
class Seen:
    """How often each value, and each type of value, is in the book: a fold of its tasks."""

    values: Counter[tuple[str, str]] = field(default_factory=Counter)  # (what, text)
    types: Counter[tuple[str, str]] = field(default_factory=Counter)  # (what, name of the type)
    totals: Counter[str] = field(default_factory=Counter)

    def add(self, task: Task) -> None:
        for what, texts in _asked(task).items():
            for text in texts:
                self.values[what, text] += 1
                self.types[what, _type(text)] += 1
                self.totals[what] += 1

    def surprise(self, what: str, texts: Sequence[str], *, hierarchical: bool) -> float:
        """Mean over `texts` of 1 − p, in [0, 1]; 1 for what was never seen."""
        return sum(self._surprise(what, text, hierarchical) for text in texts) / len(texts)

    def _surprise(self, what: str, text: str, hierarchical: bool) -> float:
        value, total = self.values[what, text], self.totals[what]
        if not hierarchical:
            return 1.0 - value / total if total else 1.0
        of_type = self.types[what, _type(text)]
        by_type = 1.0 - of_type / total if total else 1.0
        return (by_type + (1.0 - value / of_type if of_type else 1.0)) / 2


def terms(
    task: Task, references: Sequence[Task], seen: Seen, config: IntrinsicConfig, programs: Programs | None = None
) -> dict[str, float]:
    """The terms that are switched on and apply to the type of `task`, by name.

    ValueError without `programs` where one of the first three is on.
    """
    on = [name for name in TERMS if getattr(config, name)]
    found: dict[str, float] = {}
    if measures(config):
        if programs is None:
            raise ValueError(f"nothing measures programs, which intrinsic.{on[0]} asks for")
        if task.type is not TaskType.INDUCTION and not task.composite:
            found |= _of_program(task, references, programs)
    for what, texts in _asked(task).items():
        if what in on:
            found[what] = seen.surprise(what, texts, hierarchical=config.hierarchical)
    return {name: min(getattr(config, name) * found[name], config.limit) for name in on if name in found}


def combined(learnability: float, found: Mapping[str, float], method: str) -> float:
    """The proposer's reward. With no terms, or none learnable, it is `learnability` by every method.

    sum: l + Σ · multiply: l · Π · sum_multiply: l + Π · multiply_sum: l · Σ.
    """
    if learnability <= 0.0 or not found:
        return learnability
    values = found.values()
    match method:
        case "sum":
            return learnability + sum(values)
        case "multiply":
            return learnability * prod(values)
        case "sum_multiply":
            return learnability + prod(values)
        case "multiply_sum":
            return learnability * sum(values)
    raise ValueError(f"no such combination: {method}")


def _of_program(task: Task, references: Sequence[Task], programs: Programs) -> dict[str, float]:
    program = programs.measure(task.program)
    if program is None:
        return {}
    found = {
        "complexity": program.cognitive / 15,
        "halstead": 0.5 * min(program.effort / 1e4, 1.0)
        + 0.3 * min(program.cyclomatic / 10, 1.0)
        + 0.2 * min(program.volume / 500, 1.0),
    }
    others = [measured for measured in (programs.measure(reference.program) for reference in references) if measured]
    if others:
        found["edit_distance"] = sum(programs.distance(program, other) for other in others) / len(others)
    return found


def _asked(task: Task) -> dict[str, tuple[str, ...]]:
    """What diversity is taken of, by the name of its term."""
    match task.type:
        case TaskType.DEDUCTION | TaskType.ERROR:
            return {"answer_diversity": task.outputs}
        case TaskType.ABDUCTION:
            return {"answer_diversity": task.inputs}
        case TaskType.INDUCTION:
            return {"input_diversity": task.inputs, "output_diversity": task.outputs}


def _type(text: str) -> str:
    return ",".join(argument_types(text))


def fold(tasks: Iterable[Task], before: Mapping[TaskType, Seen] | None = None) -> dict[TaskType, Seen]:
    """Counts per task type; on top of `before`, which stays as it is."""
    found = {task_type: Seen() for task_type in TaskType}
    for task_type, seen in (before or {}).items():
        found[task_type] = Seen(seen.values.copy(), seen.types.copy(), seen.totals.copy())
    for task in tasks:
        found[task.type].add(task)
    return found
