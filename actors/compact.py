"""The compact wording: a few tokens per prompt, for models of well under a million parameters.

A response is `<think>…</think><answer>…</answer>`, the thought optional, nothing around it. Inputs, outputs and
messages take one line each.
"""

from __future__ import annotations

from collections.abc import Sequence

from actors import composite
from actors.environment import Answer
from actors.wording import IDENTITY, Proposal, read_tags
from common.types import Task, TaskType

_MESSAGE = "message:"


class Compact:
    """Implements actors.wording.Wording."""

    def __init__(self, inputs: int = 6, message: bool = False) -> None:
        """`inputs` of an induction task; `message`: whether such a proposal ends in a line for the solver."""
        self._inputs, self._message = inputs, message

    def identity(self, task_type: TaskType) -> Proposal:
        """On 1, or on 0, 1, 2, … for induction."""
        if task_type is not TaskType.INDUCTION:
            return Proposal(IDENTITY, ("1",))
        return Proposal(IDENTITY, tuple(str(i) for i in range(self._inputs)), "the same" if self._message else "")

    def propose_prompt(self, task_type: TaskType, references: Sequence[Task], components: Sequence[str] = ()) -> str:
        if task_type is TaskType.INDUCTION:
            return f"propose induction\n{references[0].program}\n"
        shown = "".join(f"{task.program}\ninput:{task.inputs[0]}\n" for task in references)
        given = "".join(f"{text}\n" for text in components)
        call = f"call {' '.join(composite.names(len(components)))}\n" if components else ""
        return f"propose {task_type}\n{shown}{call}{given}"

    def read_proposal(self, task_type: TaskType, response: str) -> Proposal | None:
        answer = read_tags(response)
        if not answer.well_formed:
            return None
        if task_type is TaskType.INDUCTION:
            return self._read_inputs([line.strip() for line in answer.text.split("\n")])
        program, found, given = answer.text.rpartition("\ninput:")
        if not found or not program.strip() or not given.strip() or "\n" in given:
            return None
        return Proposal(program, (given.strip(),))

    def solve_prompt(self, task: Task) -> str:
        match task.type:
            case TaskType.DEDUCTION | TaskType.ERROR:
                return f"solve {task.type}\n{task.program}\ninput:{task.inputs[0]}\n"
            case TaskType.ABDUCTION:
                return f"solve abduction\n{task.program}\noutput:{task.outputs[0]}\n"
            case TaskType.INDUCTION:
                pairs = zip(task.inputs[: task.shown], task.outputs[: task.shown], strict=True)
                shown = "".join(f"{given}->{output}\n" for given, output in pairs)
                return f"solve induction\n{shown}" + (f"{_MESSAGE}{task.message}\n" if self._message else "")

    def read_answer(self, task_type: TaskType, response: str) -> Answer:
        return read_tags(response)

    def write_proposal(self, task_type: TaskType, proposal: Proposal) -> str:
        if task_type is TaskType.INDUCTION:
            message = (f"{_MESSAGE}{proposal.message}",) if self._message else ()
            return self.write_answer("\n".join((*proposal.inputs, *message)))
        return self.write_answer(f"{proposal.program}\ninput:{proposal.inputs[0]}")

    def write_solution(self, task_type: TaskType, text: str, thought: str = "") -> str:
        return self.write_answer(text, thought)

    def write_answer(self, text: str, thought: str = "") -> str:
        return f"<think>{thought}</think><answer>{text}</answer>" if thought else f"<answer>{text}</answer>"

    def _read_inputs(self, lines: list[str]) -> Proposal | None:
        message = ""
        if self._message:
            found, message = lines[-1].startswith(_MESSAGE), lines[-1].removeprefix(_MESSAGE).strip()
            lines = lines[:-1]
            if not (found and message and lines):
                return None
        return Proposal("", tuple(lines), message) if all(lines) else None
