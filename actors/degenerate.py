"""Can a task be solved without looking at it? Programs that return their argument, or the same for every input.

Told by what a program does, not by how it is written: an induction task by its own inputs; a task of one input by
further ones (`probes.py`), each a job of its own, because the program may not be defined on all of them. The questions
end with the first values that tell otherwise: most programs cost one or two executions more.

Not guaranteed: that every such program is found (none is on which fewer than two probes gave a value), or that one that
is called so has no other value: it may have on an input that nobody tried.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors.probes import probes
from common.jobs import Executor, Validate, Verify
from common.types import Status, Task, TaskType

_ENOUGH = 2  # probes that gave a value


async def degenerate(task: Task, input_keys: Sequence[str], executor: Executor) -> Status:
    """IDENTITY or CONSTANT; OK for a valid task that is neither; INFRA if the executor had no answer.

    `input_keys` are those of the task's inputs (common.jobs.Validation).
    """
    suspected = set()
    if await _returns_argument(task, task.inputs, task.outputs, executor):
        suspected.add(Status.IDENTITY)
    if len(set(task.outputs)) == 1:
        suspected.add(Status.CONSTANT)
    if task.type is TaskType.INDUCTION:
        return min(suspected, default=Status.OK)
    seen = set(input_keys)
    for probe in probes(task.inputs[0]):
        found = await executor.validate(Validate(task.program, (probe,)))
        if found.status == Status.INFRA:
            return Status.INFRA
        if found.status != Status.OK or not seen.isdisjoint(found.input_keys):
            continue
        seen.update(found.input_keys)
        if found.outputs != task.outputs:
            suspected.discard(Status.CONSTANT)
        if Status.IDENTITY in suspected and not await _returns_argument(task, (probe,), found.outputs, executor):
            suspected.discard(Status.IDENTITY)
        if not suspected:
            return Status.OK
    return min(suspected) if len(seen) - len(input_keys) >= _ENOUGH else Status.OK


async def _returns_argument(task: Task, inputs: Sequence[str], outputs: Sequence[str], executor: Executor) -> bool:
    """Is every input one argument, equal to its output? Asked as a deduction, which runs nothing: values are compared
    by whoever may read them. Each stands in brackets, or two arguments would pass for the pair that they are not."""
    wanted = "".join(f"[{output}], " for output in outputs)
    claimed = "".join(f"[{given}\n], " for given in inputs)
    question = Task(TaskType.DEDUCTION, task.program, ("",), (f"[{wanted}]",), "")
    (verdict,) = (await executor.verify(Verify(question, (f"[{claimed}]",)))).verdicts
    return verdict.correct
