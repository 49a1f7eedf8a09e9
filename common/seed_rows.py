"""Seed tasks as lines of JSON, the format of `seeds.load` and `seeds.save`. Two forms are read:

    ours      {"type": "deduction", "program": "def f(x): return x + 1", "inputs": ["1"], "outputs": ["2"]}
              the fields of common.types.Task; "message", "shown" (half of the pairs then) and "composite" may be left
              out, keys are not taken over
    official  {"snippet": "def f(x): return x + 1", "input": "1", "output": "2", "imports": []}
              {"snippet": …, "inputs": ["1", "2"], "outputs": ["2", "3"], "message": "…", "imports": []}
              of the Absolute Zero code, a composite if "composite_functions" names any; other fields ignored. A pair is
              a deduction and an abduction task, as there the two buffers begin with the same rows; pairs are an
              induction task that shows the first half of them

What is read is a claim: outputs are as written and keys empty until an executor has run the program. A file is taken
whole or not at all. Invariant: what `write` wrote, `read` gives back, but for the keys.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.types import Task, TaskType

_SHOWN = 80  # characters of a wrong field in a message
_OWN = frozenset(field.name for field in dataclasses.fields(Task))


def read(path: Path) -> tuple[Task, ...]:
    """The tasks of a file, in its order. ConfigError naming file and line, and what is expected there."""
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise ConfigError(f"cannot read the seeds {path}: {error.strerror}") from error
    tasks: list[Task] = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                tasks += _tasks(line)
            except ValueError as error:
                raise ConfigError(f"{path}, line {number}: {error}. No seed was taken; correct or drop it") from error
    if not tasks:
        raise ConfigError(f"{path} holds no seeds; each line is a task as JSON (common/seed_rows.py)")
    return tuple(tasks)


def write(path: Path, tasks: Iterable[Task]) -> None:
    """One line a task, in our form; a file of that name stays whole until then. ConfigError if it cannot be written."""
    part = path.with_name(f"{path.name}.part")
    try:
        part.write_text("".join(json.dumps(dataclasses.asdict(task)) + "\n" for task in tasks), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"cannot write the seeds to {path}: {error.strerror}") from error


def _tasks(line: bytes) -> list[Task]:
    """ValueError saying what is wrong."""
    try:
        row = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"{_brief(row)} is no object")
    if "program" in row:
        return [_own(row)]
    if "snippet" in row:
        return _official(row)
    raise ValueError('there is neither "program" (our form) nor "snippet" (that of the official code)')


def _own(row: Mapping[str, Any]) -> Task:
    unknown = sorted(set(row) - _OWN)
    if unknown:
        raise ValueError(f'there is no field "{unknown[0]}"; a task has {", ".join(sorted(_OWN))}')
    if row.get("type") not in list(TaskType):
        raise ValueError(f'"type" is {_brief(row.get("type"))}, not {", ".join(TaskType)}')
    task_type, inputs = TaskType(row["type"]), _texts(row, "inputs")
    shown = row.get("shown", len(inputs) // 2 if task_type is TaskType.INDUCTION else 0)
    if type(shown) is not int:
        raise ValueError(f'"shown" is {_brief(shown)}, not a number of pairs')
    message = _text(row, "message") if "message" in row else ""
    composite = row.get("composite", False)
    if type(composite) is not bool:
        raise ValueError(f'"composite" is {_brief(composite)}, not true or false')
    return _task(task_type, _text(row, "program"), inputs, _texts(row, "outputs"), message, shown, composite)


def _official(row: Mapping[str, Any]) -> list[Task]:
    imports = _texts(row, "imports") if "imports" in row else ()
    snippet = _text(row, "snippet")
    program = "\n".join([*[line for line in imports if line not in snippet], snippet])
    if "inputs" in row:
        inputs, message = _texts(row, "inputs"), _text(row, "message") if "message" in row else ""
        return [_task(TaskType.INDUCTION, program, inputs, _texts(row, "outputs"), message, len(inputs) // 2)]
    pair = (_text(row, "input"),), (_text(row, "output"),)
    composite = bool(row.get("composite_functions"))
    return [
        _task(task_type, program, *pair, composite=composite) for task_type in (TaskType.DEDUCTION, TaskType.ABDUCTION)
    ]


def _task(
    task_type: TaskType,
    program: str,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    message: str = "",
    shown: int = 0,
    composite: bool = False,
) -> Task:
    if len(inputs) != len(outputs):
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs; they are pairs")
    if task_type is not TaskType.INDUCTION and (len(inputs) != 1 or shown):
        raise ValueError(f"{task_type} has one pair and shows none apart, not {len(inputs)} and {shown}")
    if task_type is TaskType.INDUCTION and not 0 < shown < len(inputs):
        raise ValueError(f"{shown} of {len(inputs)} pairs are shown; some must be shown and some hidden")
    return Task(task_type, program, inputs, outputs, "", message, shown, composite=composite)


def _text(row: Mapping[str, Any], name: str) -> str:
    if name not in row:
        raise ValueError(f'there is no "{name}"')
    if not isinstance(row[name], str):
        raise ValueError(f'"{name}" is {_brief(row[name])}, not text')
    row[name].encode()  # half a surrogate pair is legal JSON, and no text that could be sent on
    return str(row[name])


def _texts(row: Mapping[str, Any], name: str) -> tuple[str, ...]:
    if name not in row:
        raise ValueError(f'there is no "{name}"')
    if not isinstance(row[name], list):
        raise ValueError(f'"{name}" is {_brief(row[name])}, not a list of texts')
    return tuple([_text({name: value}, name) for value in row[name]])


def _brief(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
