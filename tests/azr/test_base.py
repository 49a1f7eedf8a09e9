"""The base model's grammar, text, tokenizer and folder; a model of thirty steps, which has learned nothing."""

from __future__ import annotations

import dataclasses
import json
import random
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from actors.codec import Codec
from actors.environment import task_key
from actors.triplets import PythonTriplets
from actors.wording import read_tags
from azr.base import build, grammar, heldout, located
from azr.base.accuracy import Accuracy
from azr.base.pretrain import batch
from azr.base.recipe import Recipe
from azr.base.text import SETTINGS, Mix, Text, abduce, deduce, induce, task_of
from common.config import ExecutorConfig, ModelConfig
from common.errors import PartFailed
from common.types import TASK_TYPES, TaskType
from executor.reader import Reader


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    lines: list[str] = []
    build(path, steps=30, log=lines.append)
    assert any("step 30/30" in line for line in lines)
    return path


def test_worked_program() -> None:
    program = grammar.parse("def f(a):\n b=(a+7)%10\n c=max(b,3)\n d=(4-c)%10\n return d")
    assert program is not None
    assert program.run(5) == (5, 2, 3, 1)
    assert program.output(9) == 8


@given(st.integers(), st.integers(0, 9))
def test_interpreter_agrees_with_python(seed: int, value: int) -> None:
    rng = random.Random(seed)
    program = grammar.random_program(rng, rng.randint(1, 5))
    assert grammar.parse(program.text) == program
    scope: dict[str, int] = {"a": value}
    for line in program.text.split("\n")[1:-1]:
        name, _, expression = line.strip().partition("=")
        scope[name] = eval(expression, {"__builtins__": {"max": max, "min": min}}, scope)  # noqa: S307
    assert tuple(scope.values()) == program.run(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "def f(a):",
        "def f(a):\n b=a\n return b",
        "def f(a):\n c=(a+1)%10\n return c",
        "def f(a):\n b=(a+1)%10\n return a",
    ],
)
def test_other_text_is_no_program(text: str) -> None:
    assert grammar.parse(text) is None


def test_degenerate_programs_are_told() -> None:
    identity = grammar.parse("def f(a):\n b=(a+4)%10\n c=(b+6)%10\n return c")
    constant = grammar.parse("def f(a):\n b=max(a,6)\n c=min(b,3)\n return c")
    neither = grammar.parse("def f(a):\n b=max(a,1)\n return b")
    assert identity is not None and constant is not None and neither is not None
    assert identity.outputs == tuple(range(10)) and constant.outputs == (3,) * 10
    assert (identity.degenerate, constant.degenerate, neither.degenerate) == (True, True, False)


def test_a_chain_of_sums_and_differences_is_simply_one() -> None:
    program = grammar.parse("def f(a):\n b=(a+7)%10\n c=(1-b)%10\n d=(c+9)%10\n return d")
    assert program is not None
    assert grammar.simplest(program).text == "def f(a):\n b=(3-a)%10\n return b"


@given(st.integers())
def test_the_simplest_program_does_the_same(seed: int) -> None:
    rng = random.Random(seed)
    program = grammar.draw(rng, held_out=True, lengths=(0, 1, 1, 1))
    simplest = grammar.simplest(program)
    assert simplest.outputs == program.outputs
    assert len(simplest.statements) <= len(program.statements)
    assert simplest == program or not grammar.is_held_out(simplest.text)


def test_programs_of_one_statement_are_not_held_out() -> None:
    with pytest.raises(ValueError, match="one statement"):
        grammar.draw(random.Random(0), held_out=True)
    drawn = (grammar.draw(random.Random(seed), held_out=False, lengths=(1,)) for seed in range(200))
    assert not any(grammar.is_held_out(program.text) for program in drawn)


def test_thoughts() -> None:
    program = grammar.parse("def f(a):\n b=(a+7)%10\n c=max(b,3)\n d=(4-c)%10\n return d")
    assert program is not None
    assert deduce(program.run(5)) == "b=2\nc=3\nd=1"
    assert abduce(program.run(5)) == "c:3\nb:2\na:5"
    task = dataclasses.replace(task_of(TaskType.INDUCTION, program, random.Random(0)), shown=2)
    task = dataclasses.replace(task, inputs=("5", "9", "1"), outputs=("1", "8", "6"))
    assert induce(task) == "5->1:6,6\n9->8:9,7"


def test_thoughts_become_rare() -> None:
    mix = Mix(thoughts=0.2, first_thoughts=0.8, falling=0.4)
    assert mix.thoughts_at(0.0) == mix.thoughts_at(0.4) == pytest.approx(0.8)
    assert mix.thoughts_at(0.7) == pytest.approx(0.5)
    assert mix.thoughts_at(1.0) == pytest.approx(0.2)


@pytest.mark.parametrize("slips", [0.0, 0.25, 1.0])
def test_some_of_the_later_thoughts_slip_and_their_answers_follow_them(slips: float) -> None:
    text = Text(Mix(thoughts=1.0, first_thoughts=1.0, slips=slips), random.Random(4))
    text.progress = 1.0
    thoughts = wrong = 0
    for _ in range(3000):
        prompt, response = text.example()
        if not prompt.startswith("solve deduction"):
            continue
        program = grammar.parse(prompt.removeprefix("solve deduction\n").partition("\ninput:")[0])
        assert program is not None
        states = program.run(int(prompt.partition("input:")[2]))
        thought = response.partition("<think>")[2].partition("</think>")[0]
        thoughts, wrong = thoughts + 1, wrong + (thought != deduce(states))
        assert read_tags(response).text == thought.rpartition("=")[2]
    assert wrong / thoughts <= slips
    assert wrong / thoughts >= slips / 2, "a slip into the value of another input shows more often than not"


@pytest.mark.parametrize("progress", [0.0, 0.5, 1.0])
def test_training_text_is_right_and_has_no_held_out_program(progress: float) -> None:
    text = Text(Mix(slips=0.0), random.Random(3))
    text.progress = progress
    triplets = PythonTriplets(SETTINGS)
    seen = 0
    for _ in range(2000):
        prompt, response = text.example()
        assert read_tags(response).well_formed
        for found in re.findall(r"def f\(a\):\n.*? return [a-h]", prompt + response, re.DOTALL):
            assert grammar.parse(found) is not None and not grammar.is_held_out(found)
            seen += 1
        if prompt.startswith("solve deduction"):
            program = grammar.parse(prompt.removeprefix("solve deduction\n").partition("\ninput:")[0])
            assert program is not None
            value = int(prompt.partition("input:")[2])
            assert read_tags(response).text == str(program.output(value))
        if prompt.startswith("solve induction"):
            program = grammar.parse(read_tags(response).text)
            assert program is not None
            pairs = [line.split("->") for line in prompt.splitlines()[1:]]
            assert [str(program.output(int(given))) for given, _ in pairs] == [output for _, output in pairs]
        if prompt.startswith("propose induction"):
            identity = triplets.identity(TaskType.INDUCTION)
            assert triplets.parse_proposal(TaskType.INDUCTION, [identity], response) is not None
    assert seen > 1000


def test_held_out_tasks_round_trip(tmp_path: Path) -> None:
    tasks = heldout.standard(seed=0)
    heldout.write(tmp_path / heldout.STANDARD, tasks)
    read = heldout.read(tmp_path)
    assert sum(read.values(), ()) == tasks
    assert all(len(read[task_type]) == heldout.PER_TYPE for task_type in TASK_TYPES)
    assert len({task.key for task in tasks}) == len(tasks)
    harder = heldout.harder(seed=0)
    assert all(grammar.is_held_out(task.program) for task in tasks + harder)
    assert {task.program.count("\n") - 1 for task in tasks} == {2, 3}
    assert {task.program.count("\n") - 1 for task in harder} == {4, 5}
    with pytest.raises(PartFailed, match=r"heldout_harder\.jsonl is missing"):
        heldout.read(tmp_path, heldout.HARDER)


async def test_keys_of_held_out_tasks_are_those_of_the_executor() -> None:
    limits = ExecutorConfig()
    reader = Reader(policy=True, timeout=30.0, max_value=limits.output_limit, entries=16)
    try:
        for task in heldout.standard(seed=0, per_type=2):
            program, inputs = await reader.program(task.program), await reader.expressions(task.inputs)
            assert task.program_key == program.key.hex()
            assert task.key == task_key(task.type, program.key.hex(), [found.key.hex() for found in inputs])
    finally:
        await reader.close()


def test_only_response_tokens_are_predicted() -> None:
    ids, where, targets = batch([([1, 2], [3, 4]), ([5], [6])], pad=0)
    assert ids.tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert where.tolist() == [1, 2, 4]
    assert targets.tolist() == [3, 4, 6]


def test_learning_rate_warms_up_and_falls() -> None:
    recipe = Recipe(steps=1000)
    rates = [recipe.lr_at(step) for step in range(1000)]
    assert rates[0] < rates[20] < max(rates) <= recipe.lr
    assert rates[-1] == pytest.approx(recipe.lr * recipe.lr_end, rel=0.05)


def test_a_base_model_is_kept_under_a_name_of_all_that_it_is_made_from(tmp_path: Path) -> None:
    recipe = Recipe(steps=30)
    others = [
        Recipe(steps=31),
        Recipe(steps=30, seed=1),
        Recipe(steps=30, mix=Mix(thoughts=0.2)),
        Recipe(steps=30, hidden=64),
        Recipe(steps=30, vocabulary=300),
    ]
    assert len({recipe.digest, *(other.digest for other in others)}) == 6
    assert Recipe(steps=30).digest == recipe.digest
    wanted = ModelConfig(path=str(tmp_path / "tiny"), build=True, base_steps=30)
    found = located(wanted)
    assert Path(found.path) == tmp_path / f"tiny-{recipe.digest}"
    assert located(dataclasses.replace(wanted, base_seed=1)).path != found.path
    assert located(dataclasses.replace(wanted, build=False)).path == wanted.path
    (tmp_path / "tiny").mkdir()
    assert located(wanted) == wanted


def test_folder_loads_as_published(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) < 500_000
    assert model.lm_head.weight is model.model.embed_tokens.weight
    tokenizer = AutoTokenizer.from_pretrained(folder)
    codec = Codec(folder)
    prompt = PythonTriplets(SETTINGS).solve_prompt(heldout.read(folder)[TaskType.DEDUCTION][0])
    ids = codec.encode(prompt)
    assert ids.dtype == "int32" and ids[0] == tokenizer.bos_token_id and codec.stop_token_id == tokenizer.eos_token_id
    assert ids.tolist() == [tokenizer.bos_token_id, *tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    assert len(ids) < 25
    base = json.loads((folder / "base.json").read_text(encoding="utf-8"))
    assert base["recipe"]["steps"] == 30 and base["accuracy"] == {}


def test_codec_keeps_markers_and_drops_control_tokens(folder: Path) -> None:
    codec = Codec(folder)
    response = "<think>b=3</think><answer>3</answer>"
    tokens = codec.encode(response).tolist()
    assert len(tokens) < 10
    assert codec.decode([*tokens, codec.stop_token_id, 0]) == response
    hostile = "def f(a):\n return '<eos><pad> λ'"
    assert codec.stop_token_id not in codec.encode(hostile).tolist()
    assert codec.decode(codec.encode(hostile)) == hostile


def test_equal_seed_equal_weights(folder: Path, tmp_path: Path) -> None:
    build(tmp_path / "again", steps=30, log=lambda line: None)
    assert (tmp_path / "again/model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again"]
    with pytest.raises(FileExistsError, match="again"):
        build(tmp_path / "again", steps=30)


def test_accuracy_is_measured(folder: Path) -> None:
    state = torch.random.get_rng_state()
    accuracy = Accuracy(AutoModelForCausalLM.from_pretrained(folder), folder)
    tasks = heldout.read(folder)
    for task_type in TASK_TYPES:
        for forced in (False, True):
            assert 0 <= accuracy.solving(tasks[task_type][:2], forced=forced) <= 1
        assert 0 <= accuracy.proposing(task_type, 2) <= 1
    assert torch.equal(state, torch.random.get_rng_state())
