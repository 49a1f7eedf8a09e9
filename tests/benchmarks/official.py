"""The official executor of Absolute Zero, called as the official trainer calls it.

Nothing of it is here: it is imported from a clone of its repository. It has no sandbox; what it runs has your rights,
and answers to deduction tasks are evaluated in this very process.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

from common.types import TaskType
from tests.benchmarks.training_step import ENDLESS, WARM, Episode

_MODULE = "absolute_zero_reasoner.utils.code_utils.python_executor"
_TIMEOUT = 10  # seconds: its setting
_BANNED = ["random", "os", "sys", "time", "datetime", "subprocess", "threading", "logging"]  # its list is alike


def load(checkout: Path) -> ModuleType:
    """Its executor module alone. ImportError if that, or a library it needs, cannot be found."""
    sys.path.insert(0, str(checkout))
    return importlib.import_module(_MODULE)


class Official:
    """The official executor, called as the official trainer calls it."""

    def __init__(self, module: ModuleType, timeout_cost: float = 0.0) -> None:
        """`timeout_cost`: seconds to add to `counted` for a call that never ends, instead of making it."""
        self._executor = module.PythonExecutor(timeout_length=_TIMEOUT, ast_check=True, max_workers=1)
        self._cost = timeout_cost
        self.counted = 0.0
        self._executor.run_code(code=WARM, inputs="1")

    def close(self) -> None:
        self._executor.cleanup()

    def run(self, episode: Episode) -> list[bool]:
        task = episode.task
        if episode.proposes and not all(self.valid(task.program, given) for given in task.inputs):
            return [False]
        return [True] * episode.proposes + [self._right(episode, answer) for answer in episode.answers]

    def valid(self, program: str, given: str) -> bool:
        if self._skips(program):
            return False
        valid, _ = self._executor.check_all(code=program, inputs=given, banned_keywords=_BANNED, imports=[])
        return bool(valid)

    def _right(self, episode: Episode, answer: str) -> bool:
        task = episode.task
        match task.type:
            case TaskType.DEDUCTION:
                ask = self._executor.eval_output_prediction
                return bool(ask(code=task.program, gold_output=task.outputs[0], agent_output=answer) == 1.0)
            case TaskType.ABDUCTION:
                return self._maps(task.program, answer, task.outputs[0])
            case TaskType.INDUCTION:
                hidden = list(zip(task.inputs, task.outputs, strict=True))[task.shown :]
                return all([self._maps(answer, given, output) for given, output in hidden])  # it makes every call
            case TaskType.ERROR:
                raise ValueError("nothing in the official code judges them: it compares words")

    def _maps(self, program: str, given: str, output: str) -> bool:
        if self._skips(program):
            return False
        score = self._executor.eval_input_prediction(code=program, gold_output=output, agent_input=given)
        return bool(score == 1.0)

    def _skips(self, program: str) -> bool:
        if self._cost and program.startswith(ENDLESS):
            self.counted += self._cost
            return True
        return False
