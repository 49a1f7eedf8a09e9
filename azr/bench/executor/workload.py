"""Jobs made of rows: programs that are known to run, and programs that never end.

Copies of an input that differ in the spaces before it, and of an answer in those behind it, are different to the
executor, so that nothing is run less often than it is asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from azr.rows import Row
from common.jobs import Executor, Validate, Verify
from common.types import Status, Task, TaskType

INPUTS = 8  # of a job with several
ANSWERS = 6  # to a task, as many as an actor samples by default
_PAIRS, _SHOWN = 6, 3  # of an induction task


@dataclass(frozen=True, slots=True)
class Case:
    """A program, an argument list, and the text of what it gives."""

    program: str
    given: str
    output: str

    def single(self) -> Validate:
        return Validate(self.program, (self.given,))

    def several(self) -> Validate:
        return Validate(self.program, self._inputs(INPUTS))

    def deduction(self) -> Verify:
        return Verify(self._task(TaskType.DEDUCTION), tuple([self.output + " " * n for n in range(ANSWERS)]))

    def abduction(self) -> Verify:
        return Verify(self._task(TaskType.ABDUCTION), self._inputs(ANSWERS))

    def induction(self) -> Verify:
        answers = tuple([f"{self.program}\n_{n} = {n}\n" for n in range(ANSWERS)])
        outputs = (self.output,) * _PAIRS
        task = Task(TaskType.INDUCTION, self.program, self._inputs(_PAIRS), outputs, key="", shown=_SHOWN)
        return Verify(task, answers)

    def _task(self, kind: TaskType) -> Task:
        return Task(kind, self.program, (self.given,), (self.output,), key="")

    def _inputs(self, count: int) -> tuple[str, ...]:
        return tuple([" " * n + self.given for n in range(count)])


def endless(number: int) -> Validate:
    """A program that never ends, different for each number."""
    return Validate(f"def f(x):\n    while True:\n        x += {number}\n", ("0",))


async def cases(rows: Sequence[Row], executor: Executor) -> list[Case]:
    """The rows whose first input gives a value. The others would measure something else."""
    found = []
    for row in rows:
        validation = await executor.validate(Validate(row.program, row.inputs[:1]))
        if validation.status == Status.OK:
            found.append(Case(row.program, row.inputs[0], validation.outputs[0]))
    return found
