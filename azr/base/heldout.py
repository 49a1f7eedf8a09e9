"""Tasks on programs that no text to train on contains, kept as JSON lines beside the model.

Invariants: task keys are unique within a file; `standard` has the programs' lengths of the training text,
`harder` has longer ones. Keys are made from texts, not by the executor's checker: they name a task in its
file, no more. Not guaranteed: that self-play does not propose one of these programs by itself (about one in
eight falls in the held-out class).
"""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

from actors.environment import task_key
from azr.base import grammar
from azr.base.text import task_of
from common.errors import PartFailed
from common.types import Task, TaskType

STANDARD, HARDER = "heldout.jsonl", "heldout_harder.jsonl"
PER_TYPE = 400


def standard(seed: int) -> tuple[Task, ...]:
    """400 tasks per type, one to three statements."""
    return _tasks(random.Random(f"held out {seed}"), 1, 3)


def harder(seed: int) -> tuple[Task, ...]:
    """400 tasks per type, four or five statements."""
    return _tasks(random.Random(f"held out, harder {seed}"), 4, 5)


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
            hint="set eval.tasks=0 to run without evaluation, or make the tiny base model: python -m azr.base",
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise PartFailed("model", f"cannot read {path}: {error!r}", hint="make the base model again") from error
    return {kind: tuple(task for task in tasks if task.type is kind) for kind in TaskType}


def _task(row: dict[str, object]) -> Task:
    fields = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return Task(**{**fields, "type": TaskType(row["type"])})  # type: ignore[arg-type]


def _tasks(rng: random.Random, shortest: int, longest: int) -> tuple[Task, ...]:
    found: dict[str, Task] = {}
    for task_type in TaskType:
        wanted = len(found) + PER_TYPE
        while len(found) < wanted:
            program = grammar.draw(rng, held_out=True, shortest=shortest, longest=longest)
            task = task_of(task_type, program, rng)
            key = task_key(task_type, task.program, task.inputs)
            found.setdefault(key, dataclasses.replace(task, key=key))
    return tuple(found.values())
