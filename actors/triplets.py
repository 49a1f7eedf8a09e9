"""The environment of Absolute Zero (arXiv 2505.03335): triplets of a Python program, its input and its
output.

Deduction asks for the output, abduction for an input, induction for the program, error deduction for the
exception. This module is the logic only: what a proposal must hold, what is sent to the executor, what a task is. The
text is a wording's (`wording.py`), the judgement of tasks that need no thought is in `degenerate.py`.

Invariants: a task has been executed (or is the identity, whose outputs are its inputs); the inputs of an
induction task are distinct, by text before they cost an execution and by value after it, and some are hidden; no
answer without text, and none to an error task, is executed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from actors import composite
from actors.compact import Compact
from actors.degenerate import degenerate
from actors.environment import Answer, Draft, Validated, task_key
from actors.paper import Paper
from actors.wording import Wording
from common.config import EnvironmentConfig
from common.jobs import Composition, Executor, Validate, Verdict, Verify
from common.types import NO_ERROR, Status, Task, TaskType

_MISSING = Verdict(False, Status.FORMAT, "no answer in the response")
_DETAILS = {Status.IDENTITY: "the program returns its argument", Status.CONSTANT: "every input gives the same"}


class PythonTriplets:
    def __init__(self, config: EnvironmentConfig, wording: Wording | None = None) -> None:
        """`wording`: another than `config.prompts` names."""
        self._config = config
        self._wording = _style(config) if wording is None else wording
        rules = {Status.IDENTITY: config.reject_identity, Status.CONSTANT: config.reject_constant}
        self._rules = frozenset(status for status, in_force in rules.items() if in_force)
        words = "|".join(map(re.escape, config.error_banned))
        self._banned = re.compile(rf"(?<!\w)(?:{words})(?!\w)") if words else None

    def identity(self, task_type: TaskType) -> Task:
        """`f(a) = a` on the inputs of the wording.

        Its key comes from the program's text, not from the checker, so a model that proposes it again is not
        a copy.
        """
        seed = self._wording.identity(task_type)
        key = task_key(task_type, seed.program, seed.inputs)
        outputs = (NO_ERROR,) if task_type is TaskType.ERROR else seed.inputs
        return self._task(Draft(task_type, seed.program, seed.inputs, seed.message), outputs, key)

    def propose_prompt(self, task_type: TaskType, references: Sequence[Task], components: Sequence[Task] = ()) -> str:
        return self._wording.propose_prompt(task_type, references, composite.components(components))

    def parse_proposal(
        self, task_type: TaskType, references: Sequence[Task], response: str, components: Sequence[Task] = ()
    ) -> Draft | None:
        """Induction takes its program from the first reference: the model proposes inputs for it."""
        proposal = self._wording.read_proposal(task_type, response)
        if proposal is None:
            return None
        induction = task_type is TaskType.INDUCTION
        if len(proposal.inputs) != (self._config.inputs if induction else 1):
            return None
        if induction:
            given = references[0]
            return Draft(task_type, given.program, proposal.inputs, proposal.message, composite=given.composite)
        if not components:
            return Draft(task_type, proposal.program, proposal.inputs)
        program = composite.whole(composite.components(components), proposal.program)
        composition = Composition(proposal.program, composite.names(len(components)))
        return Draft(task_type, program, proposal.inputs, "", composition, composite=True)

    async def validate(self, draft: Draft, executor: Executor) -> Validated:
        if len(set(draft.inputs)) < len(draft.inputs):
            return Validated(Status.INPUT, detail="inputs are not distinct")
        if draft.type is TaskType.INDUCTION and len(draft.inputs) <= (shown := draft.shown or self._config.shown):
            return Validated(Status.INPUT, detail=f"no input is hidden: {shown} are shown")
        errors = draft.type is TaskType.ERROR
        if errors and self._banned is not None and (word := self._banned.search(draft.program)):
            return Validated(Status.POLICY, detail=f"word not allowed in an error task: {word.group()}")
        result = await executor.validate(Validate(draft.program, draft.inputs, errors, draft.composition))
        if result.status != Status.OK:
            return Validated(result.status, detail=result.detail)
        if len(set(result.input_keys)) < len(draft.inputs):
            return Validated(Status.INPUT, detail="inputs are not distinct")
        key = task_key(draft.type, result.program_key, result.input_keys)
        task = self._task(draft, result.outputs, key, result.program_key)
        if self._rules and not errors:
            status = await degenerate(task, result.input_keys, executor, self._rules)
            if status != Status.OK:
                return Validated(status, detail=_DETAILS.get(status, ""))
        return Validated(Status.OK, task)

    def solve_prompt(self, task: Task) -> str:
        return self._wording.solve_prompt(task)

    def parse_answer(self, task: Task, response: str) -> Answer:
        return self._wording.read_answer(task.type, response)

    async def verify(self, task: Task, answers: Sequence[Answer], executor: Executor) -> tuple[Verdict, ...]:
        """Equal answers are judged once. An error is told by its name: the first word, without a message behind it."""
        if task.type is TaskType.ERROR:
            wanted = _error_name(task.outputs[0])
            return tuple(
                Verdict(_error_name(answer.text) == wanted, Status.OK) if answer.text else _MISSING
                for answer in answers
            )
        texts = tuple(dict.fromkeys(answer.text for answer in answers if answer.text))
        judged: dict[str, Verdict] = {}
        if texts:
            reply = await executor.verify(Verify(task, texts))
            judged = dict(zip(texts, reply.verdicts, strict=True))
        return tuple(judged.get(answer.text, _MISSING) for answer in answers)

    def _task(self, draft: Draft, outputs: tuple[str, ...], key: str, program_key: str = "") -> Task:
        shown = (draft.shown or self._config.shown) if draft.type is TaskType.INDUCTION else 0
        return Task(
            draft.type,
            draft.program,
            draft.inputs,
            outputs,
            key,
            draft.message,
            shown,
            program_key,
            draft.composite,
        )


def _style(config: EnvironmentConfig) -> Wording:
    if config.prompts == "compact":
        return Compact(config.inputs, config.message)
    return Paper(config.inputs, config.message, config.error_banned)


def _error_name(text: str) -> str:
    """The first word before a colon, in lower case."""
    return next(iter(text.partition(":")[0].split()), "").lower()
