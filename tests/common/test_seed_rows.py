"""Seed tasks in files: ours and the official rows."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import seed_rows
from common.errors import ConfigError
from common.types import Task, TaskType

OFFICIAL_PAIR = {
    "snippet": "from math import sqrt\ndef f(a):\n    return int(sqrt(a))",
    "input": "9",
    "output": "3",
    "imports": ["from math import sqrt", "import re"],
    "original_snippet": "def f(a): ...",
    "composite_functions": [],
    "_input_type": "int",
}
OFFICIAL_SET = {
    "snippet": "def f(a):\n    return a",
    "inputs": ["1", "'b'", "[\n3]", "4", "5"],
    "outputs": ["1", "'b'", "[3]", "4", "5"],
    "message": "say it again",
    "imports": [],
}
OURS = {"type": "deduction", "program": "def f(x): return x", "inputs": ["1"], "outputs": ["1"]}

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
pairs = st.builds(
    lambda kind, program, given_, output, composite: Task(
        kind, program, (given_,), (output,), "key", program_key="its", composite=composite
    ),
    st.sampled_from([TaskType.DEDUCTION, TaskType.ABDUCTION]), texts, texts, texts, st.booleans(),
)  # fmt: skip
sets = st.lists(st.tuples(texts, texts), min_size=2, max_size=5).flatmap(
    lambda rows: st.builds(
        lambda program, message, shown: Task(
            TaskType.INDUCTION, program, tuple(g for g, _ in rows), tuple(o for _, o in rows), "key", message, shown
        ),
        texts, texts, st.integers(1, len(rows) - 1),
    )
)  # fmt: skip


def written(folder: Path, *rows: object) -> Path:
    path = folder / "seeds.jsonl"
    path.write_text("\n\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


@given(st.lists(pairs | sets, min_size=1, max_size=4))
def test_what_is_written_is_read_but_for_the_keys(tmp_path_factory: pytest.TempPathFactory, tasks: list[Task]) -> None:
    path = tmp_path_factory.getbasetemp() / "seeds.jsonl"
    seed_rows.write(path, tasks)
    unkeyed = tuple(dataclasses.replace(task, key="", program_key="") for task in tasks)
    assert seed_rows.read(path) == unkeyed


def test_an_official_pair_is_a_deduction_and_an_abduction(tmp_path: Path) -> None:
    program = "import re\nfrom math import sqrt\ndef f(a):\n    return int(sqrt(a))"
    assert seed_rows.read(written(tmp_path, OFFICIAL_PAIR)) == (
        Task(TaskType.DEDUCTION, program, ("9",), ("3",), ""),
        Task(TaskType.ABDUCTION, program, ("9",), ("3",), ""),
    )


def test_an_official_set_shows_its_first_half(tmp_path: Path) -> None:
    (task,) = seed_rows.read(written(tmp_path, OFFICIAL_SET))
    assert (task.type, task.program, task.shown) == (TaskType.INDUCTION, OFFICIAL_SET["snippet"], 2)
    assert task.inputs == ("1", "'b'", "[\n3]", "4", "5") and task.outputs == ("1", "'b'", "[3]", "4", "5")
    assert (task.message, task.key, task.program_key) == ("say it again", "", "")


def test_a_composite_is_known_in_both_forms(tmp_path: Path) -> None:
    official = OFFICIAL_PAIR | {"composite_functions": ["def g_0(a):\n    return a"]}
    found = seed_rows.read(written(tmp_path, OURS, OURS | {"composite": True}, official))
    assert [task.composite for task in found] == [False, True, True, True]


def test_forms_may_be_mixed(tmp_path: Path) -> None:
    found = seed_rows.read(written(tmp_path, OURS, OFFICIAL_SET, OFFICIAL_PAIR))
    assert [task.type for task in found] == ["deduction", "induction", "deduction", "abduction"]


def without(row: Mapping[str, object], *names: str, **fields: object) -> dict[str, object]:
    return {name: value for name, value in {**row, **fields}.items() if name not in names}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ([], r"\[\] is no object"),
        ({}, 'neither "program" .* nor "snippet"'),
        (without(OURS, "type"), '"type" is null, not deduction, abduction, induction'),
        (without(OURS, type="eval"), '"type" is "eval", not deduction'),
        (without(OURS, type=["deduction"]), r'"type" is \["deduction"\], not deduction'),
        (without(OURS, program=5), '"program" is 5, not text'),
        (without(OURS, "inputs"), 'there is no "inputs"'),
        (without(OURS, "outputs"), 'there is no "outputs"'),
        (without(OURS, inputs="1"), '"inputs" is "1", not a list of texts'),
        (without(OURS, inputs=[1]), '"inputs" is 1, not text'),
        (without(OURS, inputs=["1", "2"]), "2 inputs and 1 outputs; they are pairs"),
        (without(OURS, inputs=["1", "2"], outputs=["1", "2"]), "deduction has one pair and shows none apart, not 2"),
        (without(OURS, shown=1), "deduction has one pair and shows none apart, not 1 and 1"),
        (without(OURS, shown="1"), '"shown" is "1", not a number'),
        (without(OURS, type="induction"), "0 of 1 pairs are shown"),
        (without(OURS, type="induction", shown=1), "1 of 1 pairs are shown; some must be shown and some hidden"),
        (without(OURS, message=None), '"message" is null, not text'),
        (without(OURS, composite=1), '"composite" is 1, not true or false'),
        (without(OURS, massage="x"), 'there is no field "massage"; a task has .*message'),
        (without(OURS, program="\ud800"), "surrogates not allowed"),
        (without(OFFICIAL_PAIR, "output"), 'there is no "output"'),
        (without(OFFICIAL_PAIR, imports="re"), '"imports" is "re", not a list of texts'),
        (without(OFFICIAL_SET, outputs=["1"]), "5 inputs and 1 outputs"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, row: object, reason: str) -> None:
    path = written(tmp_path, OURS, row)  # lines 1 and 3, an empty one between them
    with pytest.raises(ConfigError, match=f"seeds.jsonl, line 3: .*{reason}"):
        seed_rows.read(path)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read the seeds .*absent: No such file"):
        seed_rows.read(tmp_path / "absent")
    empty = tmp_path / "empty"
    empty.write_bytes(b"\n \n")
    with pytest.raises(ConfigError, match="holds no seeds"):
        seed_rows.read(empty)
    empty.write_bytes(b"\xff\n")
    with pytest.raises(ConfigError, match=r"line 1: not JSON"):
        seed_rows.read(empty)
    with pytest.raises(ConfigError, match=r"cannot write the seeds to .*: No such file"):
        seed_rows.write(tmp_path / "absent" / "seeds", [])
