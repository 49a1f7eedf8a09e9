"""Tasks on programs that no text to train on contains, kept as JSON lines beside the model.

Invariants: task keys are unique within a file, and keys of tasks and programs are those that the executor's checker
computes, so a run can tell a proposal of a held-out program; `harder` has longer programs than `standard`, of lengths
that are a third of those in the training text, too. Not guaranteed: that no text to train on contains a program that
does the same.
"""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Sequence
from pathlib import Path

from actors.environment import task_key
from azr.base import grammar
from azr.base.text import task_of
from common.errors import PartFailed
from common.types import TASK_TYPES, Task, TaskType
from executor import checker, frames
from executor.keys import KEY_BYTES

STANDARD, HARDER = "heldout.jsonl", "heldout_harder.jsonl"
PER_TYPE = 400


def standard(seed: int, per_type: int = PER_TYPE) -> tuple[Task, ...]:
    """Tasks of each type on programs of two or three statements."""
    return _tasks(random.Random(f"held out {seed}"), grammar.STANDARD, per_type)


def harder(seed: int, per_type: int = PER_TYPE) -> tuple[Task, ...]:
    """Tasks of each type on programs of four or five statements."""
    return _tasks(random.Random(f"held out, harder {seed}"), grammar.HARDER, per_type)


def write(path: Path, tasks: tuple[Task, ...]) -> None:
    path.write_text("".join(json.dumps(dataclasses.asdict(task)) + "\n" for task in tasks), encoding="utf-8")


def read(model_path: Path, name: str = STANDARD) -> dict[TaskType, tuple[Task, ...]]:
    """Tasks by type, in file order. Raises PartFailed("model", …) if the folder has none."""
    path = model_path / name
    try:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        tasks = [_task(row) for row in rows]
    except FileNotFoundError as error:
        raise PartFailed(
            "model",
            f"{model_path} has no held-out tasks: {name} is missing",
            hint="set eval.tasks=0 to run without evaluation, or make the tiny base model: azr base",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise PartFailed("model", f"cannot read {path}: {error!r}", hint="make the base model again") from error
    return {kind: tuple(task for task in tasks if task.type is kind) for kind in TASK_TYPES}


def _task(row: dict[str, object]) -> Task:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Task(**{**fields, "type": TaskType(row["type"])})  # type: ignore[arg-type]


def _tasks(rng: random.Random, lengths: Sequence[float], per_type: int) -> tuple[Task, ...]:
    found: dict[str, Task] = {}
    for task_type in TASK_TYPES:
        wanted = len(found) + per_type
        while len(found) < wanted:
            task = _with_keys(task_of(task_type, grammar.draw(rng, held_out=True, lengths=lengths), rng))
            found.setdefault(task.key, task)
    return tuple(found.values())


def _with_keys(task: Task) -> Task:
    program_key = _key(frames.PROGRAM, task.program)
    key = task_key(task.type, program_key, [_key(frames.EXPRESSION, given) for given in task.inputs])
    return dataclasses.replace(task, key=key, program_key=program_key)


def _key(kind: int, text: str) -> str:
    """As the checker of a run computes it; programs of the grammar pass every rule."""
    _, answer = checker.answer((kind, text.encode()), apply_policy=True)
    return answer[:KEY_BYTES].hex()
