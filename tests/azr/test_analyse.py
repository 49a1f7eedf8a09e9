"""The analysis process itself, started as the intake starts it: real tokenizer, real environment, really confined."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

from actors.codec import Codec
from actors.triplets import PythonTriplets
from azr.analyse import NICE
from azr.reader import Reader
from common.config import Config, EnvironmentConfig, ModelConfig, to_yaml
from common.types import Group, Kind, Sample, Task, TaskType
from learner.analyst import Analyst, Row
from tests.fakes.groups import a_sample

SAFETY_NET = 120.0  # seconds; no test is meant to get near it
PROGRAM = "def f(a):\n return a*2"
PROPOSAL = Task(TaskType.DEDUCTION, PROGRAM, ("5",), ("10",), key="double")
REFERENCE = dataclasses.replace(PROPOSAL, program="def f(a):\n return a*3", key="treble")
SHOWN = {REFERENCE.key: REFERENCE}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A run folder whose model has a token for each printable character and no weights."""
    letters = ["<eos>", "\n", *map(chr, range(32, 127))]
    tokenizer = Tokenizer(models.WordLevel({text: i for i, text in enumerate(letters)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<eos>"}))
    (tmp_path / "config.yaml").write_text(to_yaml(Config(model=ModelConfig(path=str(tmp_path)))))
    return tmp_path


def command(folder: Path) -> tuple[str, ...]:
    return (sys.executable, "-m", "azr.analyse", str(folder))


def sample(codec: Codec, stream: Kind, text: str, *, right: bool = True, prompt: int = 0) -> Sample:
    tokens = np.append(codec.encode(text), codec.stop_token_id).astype(np.int32)
    bare = a_sample(stream, length=len(tokens), correct=right, prompt=prompt, status="ok" if right else "error")
    return dataclasses.replace(bare, tokens=tokens)


def proposing(codec: Codec, *answers: str) -> Group:
    """A valid proposal that was answered."""
    samples = [sample(codec, Kind.PROPOSE_DEDUCTION, f"<answer>{PROGRAM}\ninput:5</answer>")]
    samples += [sample(codec, Kind.SOLVE_DEDUCTION, text, right="10" in text, prompt=1) for text in answers]
    prompts = (codec.encode("propose"), codec.encode("solve"))
    kind, shown = Kind.PROPOSE_DEDUCTION, (REFERENCE.key,)
    return Group(0, 0, kind, 0, prompts, tuple(samples), PROPOSAL, 0.5, references=shown)


def solving(codec: Codec, lease: int, answer: str) -> Group:
    samples = (sample(codec, Kind.SOLVE_INDUCTION, answer, right=False),)
    return Group(lease, 0, Kind.SOLVE_INDUCTION, 0, (codec.encode("solve"),), samples, solve_rate=0.0)


async def test_figures_of_a_batch(folder: Path) -> None:
    rows: asyncio.Queue[Row] = asyncio.Queue()
    analyst = Analyst(command(folder), rows.put_nowait, SHOWN.get)
    codec = Codec(folder)
    hostile = "<answer>" + "(" * 5000 + "</answer>"
    made = [
        proposing(codec, "<think>wait</think><answer>10</answer>", "<answer>11</answer>", "<answer>10</answer>"),
        solving(codec, 5, f"<answer>{PROGRAM}</answer>"),
        solving(codec, 13, hostile),
    ]
    analyst.trained(3, made)
    row = await asyncio.wait_for(rows.get(), SAFETY_NET)
    assert analyst.pid is not None
    assert os.getpriority(os.PRIO_PROCESS, analyst.pid) == NICE
    assert confinement(analyst.pid) == {"Seccomp": "2", "NoNewPrivs": "1"}
    assert row["step"] == 3
    assert row["analysis/propose/deduction/edit_distance"] == pytest.approx(1 / 13)  # nodes
    assert row["analysis/propose/deduction/lines"] == row["analysis/propose/deduction/statements"] == 2
    assert row["analysis/propose/deduction/inputs/type/int"] == 1
    assert row["analysis/solve/deduction/answers/distinct"] == pytest.approx(2 / 3)
    assert row["analysis/solve/deduction/reflection"] == pytest.approx(1 / 3)
    assert row["analysis/solve/deduction/length/wrong"] == len("<answer>11</answer>") + 1
    assert (row["analysis/solve/induction/lines"], row["analysis/solve/induction/unparsed"]) == (2, 0.5)
    assert row["analysis/cpu_seconds"] > 0
    await analyst.close(SAFETY_NET)
    assert analyst.counts == {"analysed": 1}


def confinement(pid: int) -> dict[str, str]:
    """What the kernel says of a process."""
    fields = dict(line.split(":\t") for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: fields[name] for name in ("Seccomp", "NoNewPrivs")}


def test_a_group_whose_references_are_not_known(folder: Path) -> None:
    codec = Codec(folder)
    reader = Reader(codec, PythonTriplets(EnvironmentConfig()))
    proposed = reader.episode(proposing(codec, "<answer>10</answer>"), {})
    assert (proposed.references, proposed.proposal) == ((), PROPOSAL)
    assert [r.answer for r in proposed.responses] == [PROGRAM, "10"]
    answered = reader.episode(solving(codec, 5, f"<answer>{PROGRAM}</answer>"), {})
    assert [r.answer for r in answered.responses] == [PROGRAM]


def test_an_induction_proposal_is_read_with_its_reference_only(folder: Path) -> None:
    codec = Codec(folder)
    reader = Reader(codec, PythonTriplets(EnvironmentConfig(inputs=2, shown=1)))
    kind = Kind.PROPOSE_INDUCTION
    samples = (sample(codec, kind, "<answer>1\n2</answer>", right=False),)
    group = Group(2, 0, kind, 0, (codec.encode("p"),), samples, references=(REFERENCE.key,))
    assert [r.answer for r in reader.episode(group, SHOWN).responses] == [REFERENCE.program]
    assert [(r.answer, r.right) for r in reader.episode(group, {}).responses] == [("", False)]


def test_it_dies_with_the_intake(folder: Path) -> None:
    """Every process of the intake holds its standard error, which therefore ends when the last one has."""
    intake = f"""
import asyncio, os, signal
from learner.analyst import Analyst
async def main():
    came = asyncio.Event()
    analyst = Analyst({command(folder)!r}, lambda row: came.set(), {{}}.get)
    analyst.trained(0, [])
    await came.wait()
    print(analyst.counts["analysed"], flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    process = subprocess.Popen([sys.executable, "-c", intake], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    printed, _ = process.communicate(timeout=SAFETY_NET)
    assert (process.returncode, printed) == (-9, b"1\n")
