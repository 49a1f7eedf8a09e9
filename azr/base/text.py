"""Random examples (prompt, response) to pre-train on, in the very words of the environment.

Invariants: no held-out program in any of them; every proposal is valid, and every answer right but for slips. A
solution is worked out in a thought or answered at once. Thoughts are common at first, for they are what teaches the
operations, and rare in the end: the model can think but seldom does, and that it should is left for self-play to find.
So is care: some of the later thoughts slip, as people's do, and nothing in the text tells which.

A thought of deduction runs the program, one of abduction runs it backward, and one of induction notes for every shown
pair the difference and the sum of its numbers; the program after it is the simplest one, else it is the one that
made the pairs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from actors.compact import Compact
from actors.triplets import PythonTriplets
from actors.wording import Proposal
from azr.base import grammar
from azr.base.grammar import Program
from common.config import EnvironmentConfig
from common.types import Kind, Task, TaskType

SETTINGS = EnvironmentConfig()  # the format of every prompt: one reference, six inputs, three of them shown


@dataclass(frozen=True, slots=True)
class Mix:
    """Shares of the six kinds among the examples, lengths of programs, how many solutions have a thought or a slip.

    Most of a proposed program is chance that nothing can predict, so proposals cost tokens and teach little;
    naming distinct inputs is the one part of proposing that takes practice.
    """

    kinds: tuple[tuple[Kind, int], ...] = (
        (Kind.SOLVE_DEDUCTION, 27),
        (Kind.SOLVE_ABDUCTION, 21),
        (Kind.SOLVE_INDUCTION, 28),
        (Kind.PROPOSE_DEDUCTION, 5),
        (Kind.PROPOSE_ABDUCTION, 5),
        (Kind.PROPOSE_INDUCTION, 14),
    )
    lengths: tuple[float, ...] = (20, 22, 22, 20, 16)  # weights of programs of 1, 2, … statements
    induced_lengths: tuple[float, ...] = (45, 35, 20)  # … that are to be induced: of longer ones few can be
    thoughts: float = 0.1  # share of solutions with a thought, at the end
    first_thoughts: float = 0.8
    falling: float = 0.5  # progress until which `first_thoughts` holds and no thought slips
    slips: float = 0.25  # share of thoughts of deduction and abduction that slip from then on

    def thoughts_at(self, progress: float) -> float:
        share = max(0.0, progress - self.falling) / (1 - self.falling)
        return self.first_thoughts + (self.thoughts - self.first_thoughts) * share


class Text:
    """An endless, seeded stream of examples. `progress`, from 0 to 1, is how much of the training is over."""

    def __init__(self, mix: Mix, rng: random.Random) -> None:
        self.progress = 0.0
        self._mix = mix
        self._rng = rng
        self._kinds = [kind for kind, _ in mix.kinds]
        self._weights = [weight for _, weight in mix.kinds]
        self._wording = Compact()
        self._environment = PythonTriplets(SETTINGS, self._wording)

    def example(self) -> tuple[str, str]:
        kind = self._rng.choices(self._kinds, self._weights)[0]
        return self._proposal(kind.task_type) if kind.proposes else self._solution(kind.task_type)

    def _proposal(self, task_type: TaskType) -> tuple[str, str]:
        _, reference = self._task(task_type, self._mix.lengths)
        program, task = self._task(task_type, self._mix.lengths)
        if task_type is TaskType.INDUCTION:
            reference = task
        prompt = self._environment.propose_prompt(task_type, [reference])
        return prompt, self._wording.write_proposal(task_type, Proposal(program.text, task.inputs))

    def _solution(self, task_type: TaskType) -> tuple[str, str]:
        induced = task_type is TaskType.INDUCTION
        program, task = self._task(task_type, self._mix.induced_lengths if induced else self._mix.lengths)
        prompt = self._environment.solve_prompt(task)
        if self._rng.random() >= self._mix.thoughts_at(self.progress):
            return prompt, self._wording.write_answer(_answer(program, task))
        if induced:
            return prompt, self._wording.write_answer(grammar.simplest(program).text, induce(task))
        states = self._run(program, int(task.inputs[0]), task_type)
        if task_type is TaskType.DEDUCTION:
            return prompt, self._wording.write_answer(str(states[-1]), deduce(states))
        return prompt, self._wording.write_answer(str(states[0]), abduce(states))

    def _run(self, program: Program, value: int, task_type: TaskType) -> tuple[int, ...]:
        """The states as the thought has them: after a slip they go on as they would with another input."""
        states = program.run(value)
        if self.progress < self._mix.falling or self._rng.random() >= self._mix.slips:
            return states
        other = program.run(self._rng.choice(grammar.DIGITS))
        at = self._rng.randint(1, len(states) - 1)
        return states[:at] + other[at:] if task_type is TaskType.DEDUCTION else other[:at] + states[at:]

    def _task(self, task_type: TaskType, lengths: Sequence[float]) -> tuple[Program, Task]:
        program = grammar.draw(self._rng, held_out=False, lengths=lengths)
        return program, task_of(task_type, program, self._rng)


def _answer(program: Program, task: Task) -> str:
    if task.type is TaskType.INDUCTION:
        return program.text
    return task.outputs[0] if task.type is TaskType.DEDUCTION else task.inputs[0]


def deduce(states: tuple[int, ...]) -> str:
    """Forward, one line `name=value` per statement; `states` are the values of all variables, the input first."""
    return "\n".join(f"{name}={value}" for name, value in grammar.variables(states[1:], start=1))


def abduce(states: tuple[int, ...]) -> str:
    """Backward from the last statement's argument to the input, `name:value`.

    Another sign than in deduction, because the line that tells a value is another, too: the one that uses the variable,
    not the one that assigns it. With one sign for both a small model confuses them.
    """
    known = reversed(grammar.variables(states[:-1]))
    return "\n".join(f"{name}:{value}" for name, value in known)


def induce(task: Task) -> str:
    """`input->output:difference,sum` of each shown pair, modulo ten.

    Equal differences tell that the program is a sum, equal sums that it is a difference. The pair is written once more
    because a small model computes from what stands beside it far sooner than from what it has to look up.
    """
    pairs = zip(task.inputs[: task.shown], task.outputs[: task.shown], strict=True)
    numbers = [(int(given), int(output)) for given, output in pairs]
    return "\n".join(f"{x}->{y}:{(y - x) % 10},{(x + y) % 10}" for x, y in numbers)


def task_of(task_type: TaskType, program: Program, rng: random.Random, key: str = "") -> Task:
    """A task on `program` with random inputs, solved by the grammar's interpreter."""
    induction = task_type is TaskType.INDUCTION
    values = rng.sample(grammar.DIGITS, SETTINGS.inputs if induction else 1)
    outputs = tuple(str(program.output(value)) for value in values)
    shown = SETTINGS.shown if induction else 0
    return Task(task_type, program.text, tuple(map(str, values)), outputs, key, shown=shown)
