"""Can a task be solved without looking at it? Programs that return their argument, or the same for every input.

Told by what a program does, not by how it is written: an induction task by its own inputs; a task of one input by
further ones (`probes.py`), each a job of its own, because the program may not be defined on all of them. The questions
end with the first values that tell otherwise: most programs cost one or two executions more. Inputs that are no
literals (`2+3`, `*[5]`) cost a further one, for what they are worth: a program that hands its one argument out is run
on them.

Not guaranteed: that every such program is found (none is on which fewer than two probes gave a value, and inputs of
several arguments, or that name what is the program's own, are taken as they are written), or that one that is called so
has no other value: it may have on an input that nobody tried.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from actors.probes import probes
from common.jobs import Executor, Validate, Verdict, Verify
from common.types import Status, Task, TaskType

_ENOUGH = 2  # probes that gave a value
_KEYWORD = re.compile(r"\s*[^\W\d]\w*\s*=(?!=)")
# Fails on none or several, and on an input that calls f itself: there f is the task's.
_ARGUMENT = """\
calls = []
def f(*a, **k):
    calls.append(a)
    (_,), (v,) = calls, (*a, *k.values())
    return v
"""


async def degenerate(task: Task, input_keys: Sequence[str], executor: Executor, rules: frozenset[Status]) -> Status:
    """IDENTITY or CONSTANT, if among `rules`; OK for a valid task that is neither; INFRA if the executor had no answer.

    `input_keys` are those of the task's inputs (common.jobs.Validation).
    """
    suspected = set()
    inputs, compared = task.inputs, await _returns_argument(task, task.inputs, task.outputs, executor)
    if compared.status == Status.SYNTAX:
        found = await executor.validate(Validate(_ARGUMENT, inputs))
        if found.status == Status.INFRA:
            return Status.INFRA
        if found.status == Status.OK:
            inputs = tuple(_keyword(text) + value for text, value in zip(inputs, found.outputs, strict=True))
            compared = await _returns_argument(task, inputs, task.outputs, executor)
    if compared.correct:
        suspected.add(Status.IDENTITY)
    if len(set(task.outputs)) == 1:
        suspected.add(Status.CONSTANT)
    suspected &= rules
    if not suspected or task.type is TaskType.INDUCTION:
        return min(suspected, default=Status.OK)
    seen = set(input_keys)
    for probe in probes(inputs[0]):
        found = await executor.validate(Validate(task.program, (probe,)))
        if found.status == Status.INFRA:
            return Status.INFRA
        if found.status != Status.OK or not seen.isdisjoint(found.input_keys):
            continue
        seen.update(found.input_keys)
        if found.outputs != task.outputs:
            suspected.discard(Status.CONSTANT)
        if Status.IDENTITY in suspected:
            compared = await _returns_argument(task, (probe,), found.outputs, executor)
            if not compared.correct:
                suspected.discard(Status.IDENTITY)
        if not suspected:
            return Status.OK
    return min(suspected) if len(seen) - len(input_keys) >= _ENOUGH else Status.OK


async def _returns_argument(task: Task, inputs: Sequence[str], outputs: Sequence[str], executor: Executor) -> Verdict:
    """Is every input one argument, equal to its output? SYNTAX if not all are literals, or one behind its keyword.

    Asked as a deduction, which runs nothing: values are compared by whoever may read them. Each stands in brackets, or
    two arguments would pass for the pair that they are not."""
    wanted = "".join(f"[{output}], " for output in outputs)
    claimed = "".join(f"[{given.removeprefix(_keyword(given))}\n], " for given in inputs)
    question = Task(TaskType.DEDUCTION, task.program, ("",), (f"[{wanted}]",), "")
    (verdict,) = (await executor.verify(Verify(question, (f"[{claimed}]",)))).verdicts
    return verdict


def _keyword(given: str) -> str:
    """`a=`, where an input begins so."""
    found = _KEYWORD.match(given)
    return found.group() if found else ""
