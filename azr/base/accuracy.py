"""How well a model solves held-out tasks of the grammar, freely and with its thought forced.

Answers are judged by the grammar's interpreter, so nothing is executed; an induction answer outside the
grammar counts as wrong, which makes its figure a lower bound. This measures a base model; a run evaluates
with its executor.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from actors.codec import Codec
from actors.triplets import PythonTriplets
from azr.base import grammar
from azr.base.pretrain import one_thread
from azr.base.text import SETTINGS, task_of
from common.types import Task, TaskType

_NEW_TOKENS = 64
_BATCH = 128
_FORCED = "<think>"


class Accuracy:
    """Samples at temperature 1. `forced` starts every response with `<think>`."""

    def __init__(self, model: Any, folder: Path, seed: int = 0) -> None:
        self._model = model
        self._codec = Codec(folder)
        self._environment = PythonTriplets(SETTINGS)
        self._seed = seed

    def solving(self, tasks: Sequence[Task], *, forced: bool) -> float:
        """Share of tasks solved by one answer each."""
        prompts = [self._environment.solve_prompt(task) for task in tasks]
        responses = self._sample(prompts, _FORCED if forced else "")
        return sum(map(self._solved, tasks, responses)) / len(tasks)

    def proposing(self, task_type: TaskType, count: int) -> float:
        """Share of proposals that the grammar finds valid; the executor accepts more programs."""
        rng = random.Random(self._seed)
        references = [task_of(task_type, grammar.draw(rng, held_out=False), rng) for _ in range(count)]
        prompts = [self._environment.propose_prompt(task_type, [task]) for task in references]
        responses = self._sample(prompts, "")
        return sum(self._valid(task, response) for task, response in zip(references, responses, strict=True)) / count

    def _solved(self, task: Task, response: str) -> bool:
        text = self._environment.parse_answer(task, response).text
        program = grammar.parse(task.program)
        assert program is not None
        match task.type:
            case TaskType.DEDUCTION:
                return text == task.outputs[0]
            case TaskType.ABDUCTION:
                return text.isdecimal() and str(program.output(int(text))) == task.outputs[0]
            case TaskType.INDUCTION:
                guess = grammar.parse(text)
                hidden = zip(task.inputs[task.shown :], task.outputs[task.shown :], strict=True)
                return guess is not None and all(str(guess.output(int(given))) == output for given, output in hidden)
            case TaskType.ERROR:
                raise ValueError("programs of the grammar raise nothing")

    def _valid(self, reference: Task, response: str) -> bool:
        draft = self._environment.parse_proposal(reference.type, [reference], response)
        program = None if draft is None else grammar.parse(draft.program)
        return (
            draft is not None
            and program is not None
            and not program.degenerate
            and len(set(draft.inputs)) == len(draft.inputs)
            and all(given.isdecimal() for given in draft.inputs)
        )

    def _sample(self, prompts: Sequence[str], start: str) -> list[str]:
        with one_thread(), torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(self._seed)
            parts = [prompts[i : i + _BATCH] for i in range(0, len(prompts), _BATCH)]
            return [text for part in parts for text in self._sample_batch(part, start)]

    def _sample_batch(self, prompts: Sequence[str], start: str) -> list[str]:
        encoded = [self._codec.encode(prompt + start).tolist() for prompt in prompts]
        width = max(map(len, encoded))
        pad = self._model.config.pad_token_id
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in encoded])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in encoded])
        sampled = self._model.generate(
            input_ids=ids,
            attention_mask=mask,
            max_new_tokens=_NEW_TOKENS,
            do_sample=True,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
        )
        return [start + self._codec.decode(row) for row in sampled[:, width:].tolist()]
