"""Rows: programs with inputs as lines of JSON, the file format of `azr execute`.

{"id": "a", "code": "def f(x): return x", "inputs": ["1", "'b'"]} or, with one input, {"code": ..., "input": "1"}.
An input is an argument list as source text. "id" may be left out (the line's number is taken); "outputs" ("output") are
read on demand; other fields are ignored. A file is taken whole or not at all.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path

from common.errors import ConfigError

STDIN = "-"
_EXAMPLE = """write {"id": "a", "code": "def f(x): return x", "inputs": ["1", "'b'"]}, or "input": "1" for one"""
_SHOWN = 80  # characters of a wrong field in a message


@dataclass(frozen=True, slots=True)
class Row:
    """`inputs` are argument lists as source text; `outputs` what they should give, empty if that was not asked for."""

    id: str | int
    program: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...] = ()


def read(source: str, *, outputs: bool = False) -> list[Row]:
    """The rows of a file, or of standard input. ConfigError naming file, line and what is expected there.

    `outputs`: rows must say what their inputs should give.
    """
    name = "standard input" if source == STDIN else source
    try:
        data = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {name}: {error.strerror}") from error
    rows = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if line.strip():
            try:
                rows.append(_row(line, number, outputs))
            except ValueError as error:
                raise ConfigError(f"{name}, line {number}: {error}. Nothing was run; {_EXAMPLE}") from error
    if outputs and not rows:
        raise ConfigError(f"{name} holds no rows to check; {_EXAMPLE}")
    return rows


def _row(line: bytes, number: int, with_outputs: bool) -> Row:
    """ValueError saying what is wrong."""
    try:
        fields = json.loads(line.decode())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({error})") from error
    if not isinstance(fields, dict):
        raise ValueError(f"{_shown(fields)} is no object")
    identity = fields.get("id", number)
    if not isinstance(identity, (str, int)) or isinstance(identity, bool):
        raise ValueError(f'"id" is {_shown(identity)}, neither text nor integer; it may be left out')
    if "code" not in fields:
        raise ValueError('there is no "code"')
    program = fields["code"]
    if not isinstance(program, str):
        raise ValueError(f'"code" is {_shown(program)}, not the text of a program')
    inputs = _texts(fields, "input", "an argument list as text")
    outputs = _texts(fields, "output", "a value as text") if with_outputs else ()
    if with_outputs and len(outputs) != len(inputs):
        raise ValueError(f"{len(inputs)} inputs and {len(outputs)} outputs; to check, each input needs its own")
    return Row(identity, program, inputs, outputs)


def _texts(fields: dict[str, object], one: str, what: str) -> tuple[str, ...]:
    many = f"{one}s"
    match (one in fields, many in fields):
        case (True, True):
            raise ValueError(f'both "{one}" and "{many}"; leave one out')
        case (False, False):
            raise ValueError(f'there is neither "{many}" nor "{one}"')
    found = [fields[one]] if one in fields else fields[many]
    if not isinstance(found, list) or not found:
        raise ValueError(f'"{many}" is {_shown(found)}, not a list with at least one element, each {what}')
    texts = tuple([text for text in found if isinstance(text, str)])
    if len(texts) < len(found):
        wrong = next(text for text in found if not isinstance(text, str))
        raise ValueError(f'the {one} {_shown(wrong)} is not {what}: write "{_shown(wrong)}"')
    return texts


def _shown(field: object) -> str:
    text = json.dumps(field)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
