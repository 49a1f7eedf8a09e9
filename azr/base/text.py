"""Random examples (prompt, response) to pre-train on, in the very words of the environment.

Invariants: no held-out program in any of them; every answer is right and every proposal valid; some solutions
are worked out in a thought and some are not, so that the model can do either and has no strong habit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from actors.triplets import PythonTriplets
from actors.compact import Compact
from actors.wording import Proposal
from azr.base import grammar
from azr.base.grammar import Program
from common.config import EnvironmentConfig
from common.types import Kind, Task, TaskType

SETTINGS = EnvironmentConfig()  # the format of every prompt: one reference, six inputs, three of them shown


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the six kinds among the examples, and of solutions with a thought.

    Most of a proposed program is chance that nothing can predict, so proposals cost tokens and teach little;
    naming distinct inputs is the one part of proposing that takes practice.
    """

    kinds: tuple[tuple[Kind, int], ...] = (
        (Kind.SOLVE_DEDUCTION, 42),
        (Kind.SOLVE_ABDUCTION, 30),
        (Kind.SOLVE_INDUCTION, 6),
        (Kind.PROPOSE_DEDUCTION, 5),
        (Kind.PROPOSE_ABDUCTION, 5),
        (Kind.PROPOSE_INDUCTION, 12),
    )
    thoughts: float = 0.4


class Text:
    """An endless, seeded stream of examples."""

    def __init__(self, mix: Mix, rng: random.Random) -> None:
        self._rng = rng
        self._kinds = [kind for kind, _ in mix.kinds]
        self._weights = [weight for _, weight in mix.kinds]
        self._thoughts = mix.thoughts
        self._wording = Compact()
        self._environment = PythonTriplets(SETTINGS, self._wording)

    def example(self) -> tuple[str, str]:
        kind = self._rng.choices(self._kinds, self._weights)[0]
        return self._proposal(kind.task_type) if kind.proposes else self._solution(kind.task_type)

    def _proposal(self, task_type: TaskType) -> tuple[str, str]:
        _, reference = self._task(task_type)
        program, task = self._task(task_type)
        if task_type is TaskType.INDUCTION:
            reference = task
        prompt = self._environment.propose_prompt(task_type, [reference])
        return prompt, self._wording.write_proposal(task_type, Proposal(program.text, task.inputs))

    def _solution(self, task_type: TaskType) -> tuple[str, str]:
        program, task = self._task(task_type)
        thinks = self._rng.random() < self._thoughts
        if task_type is TaskType.INDUCTION:
            answer, thought = program.text, ""
        elif task_type is TaskType.DEDUCTION:
            answer, thought = task.outputs[0], deduce(program, int(task.inputs[0]))
        else:
            answer, thought = task.inputs[0], abduce(program, int(task.inputs[0]))
        return self._environment.solve_prompt(task), self._wording.write_answer(answer, thought if thinks else "")

    def _task(self, task_type: TaskType) -> tuple[Program, Task]:
        program = grammar.draw(self._rng, held_out=False)
        return program, task_of(task_type, program, self._rng)


def deduce(program: Program, value: int) -> str:
    """Forward, one line per statement."""
    return "\n".join(grammar.variables(program.run(value)[1:], start=1))


def abduce(program: Program, value: int) -> str:
    """Backward from the last statement's argument to the input."""
    return "\n".join(reversed(grammar.variables(program.run(value)[:-1])))


def task_of(task_type: TaskType, program: Program, rng: random.Random, key: str = "") -> Task:
    """A task on `program` with random inputs, solved by the grammar's interpreter."""
    induction = task_type is TaskType.INDUCTION
    values = rng.sample(grammar.DIGITS, SETTINGS.inputs if induction else 1)
    outputs = tuple(str(program.output(value)) for value in values)
    shown = SETTINGS.shown if induction else 0
    return Task(task_type, program.text, tuple(map(str, values)), outputs, key, shown=shown)
