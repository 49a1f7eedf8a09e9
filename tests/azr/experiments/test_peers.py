"""The comparison with TRL from its plan to its table, with two loops that take a moment."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from actors.codec import Codec
from azr.cli import main
from azr.experiments import trl
from azr.experiments.peers import Plan, peers
from azr.experiments.peers_report import Found
from common.config import load
from common.errors import ConfigError, PartFailed
from common.types import Task, TaskType
from tests.project import ROOT

FAKE = (sys.executable, "-m", "tests.fakes.loops")
PRESET = ROOT / "configs" / "tiny.yaml"
DEDUCTION = Task(TaskType.DEDUCTION, "def f(a):\n    return a + 1", ("1",), ("2",), key="")
ABDUCTION = Task(TaskType.ABDUCTION, "def f(a):\n    return a + 1", ("1",), ("2",), key="")
INDUCTION = Task(TaskType.INDUCTION, "def f(a):\n    return a", tuple("123456"), tuple("123456"), key="", shown=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer and no weights: nothing here computes."""
    from azr.base import tokenizer
    from azr.base.recipe import Recipe

    folder = tmp_path_factory.mktemp("model")
    tokenizer.save(tokenizer.train(Recipe(vocabulary_examples=50)), folder)
    return folder


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """Stands for the interpreter of the environment with TRL."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nexec env PYTHONPATH={shlex.quote(str(ROOT))} {shlex.join(FAKE)} "$@"\n')
    script.chmod(0o755)
    return script


def measured(model: Path, python: Path, out: Path, *more: str, broken: str = "none") -> tuple[Found, list[str]]:
    said: list[str] = []
    settings, command = [f"model.path={model}", *more], (*FAKE, "--broken", broken)
    return peers(PRESET, settings, Plan(2, 14), out, command=command, python=python, say=said.append), said


def test_each_is_measured_in_its_fastest_way_by_turns(model: Path, python: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found, said = measured(model, python, out)
    assert (found.ours, found.trl) == ("cluster.pin=true", "1 x 2 threads, 48 rows a pass")
    assert [round.ours.sequences_per_second for round in found.rounds] == [192 / 0.25] * 2
    assert [round.trl.sequences_per_second for round in found.rounds] == [192 / 0.75] * 2
    assert [round.ratio for round in found.rounds] == [3.0] * 2
    assert [round.tokens_ratio for round in found.rounds] == [3.75] * 2
    rates = {trial.way: trial.sequences_per_second for trial in found.trials if trial.system == "azr"}
    assert sorted(rates.values()) == [384.0, 384.0, 768.0, 768.0] and rates["cluster.pin=false"] == 384.0
    table = (out / "table.md").read_text()
    assert "| azr | cluster.pin=true | 768 [768, 768] | 7680 [7680, 7680] | 10.0 [10.0, 10.0] |" in table
    assert "3.00 [3.00, 3.00]" in table and said[-1] == table
    assert json.loads((out / "results.json").read_text())["rounds"][1]["trl"]["sequences"] == 2 * 192


def test_ours_only_solves_the_tasks_that_trl_is_given(model: Path, python: Path, tmp_path: Path) -> None:
    measured(model, python, tmp_path / "out", "algorithm.solves=2", "algorithm.solve_samples=4")
    asked = json.loads((tmp_path / "out" / "trl" / "round-2.work.json").read_text())
    assert (asked["samples"], asked["sequences"], asked["steps"], len(asked["variants"])) == (4, 24, 14, 1)
    assert len(asked["rows"]) == 3 * 64 == len((tmp_path / "out" / "tasks.jsonl").read_text().splitlines())


def test_a_trial_and_a_round_that_fail_cost_nothing_else(model: Path, python: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found, _ = measured(model, python, out, broken="trial-1,round-1")
    assert found.ours == "cluster.pin=true learner.share_prompts=true learner.micro_batch_tokens=1024"
    assert [round.ratio for round in found.rounds] == [3.0]
    kept = json.loads((out / "results.json").read_text())
    assert [failure.partition(":")[0] for failure in kept["failures"]] == [
        "trial of azr with cluster.pin=true",
        "round 1",
    ]
    assert all("its process died" in line and str(tmp_path) not in line for line in kept["failures"])
    assert "- round 1: " in (out / "table.md").read_text() and "3.00 [3.00, 3.00]" in (out / "table.md").read_text()


def test_trials_outlive_an_experiment_without_a_round(model: Path, python: Path, tmp_path: Path) -> None:
    found, said = measured(model, python, tmp_path / "out", broken="round-1,round-2")
    assert found.rounds == () and len(found.trials) > 4 and len(found.failures) == 2
    assert "| azr | cluster.pin=true | none | none | none |" in said[-1]
    with pytest.raises(PartFailed, match="no way to run it went well"):
        measured(model, python, tmp_path / "other", broken="trial-1,trial-2,trial-3,trial-4")


def test_the_prompts_are_those_of_our_codec(model: Path) -> None:
    config = load(PRESET, [f"model.path={model}"])
    work = trl.work(config, [DEDUCTION, ABDUCTION, INDUCTION])
    codec = Codec(model)
    assert [codec.encode(row["prompt"]).tolist() for row in work.rows] == [row["tokens"] for row in work.rows]
    assert [row["answer"] for row in work.rows] == ["2", "1", "def f(a):\n    return a"]
    assert work.sequences == 3 * config.algorithm.solves * config.algorithm.solve_samples


@pytest.mark.parametrize(("sequences", "samples"), [(192, 8), (72, 6), (9, 3), (12, 4)])
def test_every_variant_divides_the_batch_and_no_group_is_torn(sequences: int, samples: int) -> None:
    variants = trl.variants(sequences, samples)
    assert len(set(variants)) == len(variants)
    for variant in variants:
        assert sequences % (variant.rows * variant.processes) == 0
        assert variant.processes == 1 or sequences // variant.processes % samples == 0


def test_what_stands_in_the_way_is_told_before_anything_starts(model: Path, python: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="scripts/peers"):
        measured(model, tmp_path / "none" / "bin" / "python", tmp_path / "out")
    with pytest.raises(ConfigError, match="--steps must be above 16"):
        measured(model, python, tmp_path / "out", "staleness.eta=6")
    with pytest.raises(ConfigError, match="--rounds"):
        Plan(rounds=0)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out" / "runs").mkdir(parents=True)
    with pytest.raises(ConfigError, match="another --out"):
        measured(model, python, tmp_path / "out")


def test_a_failure_of_trl_names_its_log(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho ImportError: no TRL >&2\nexit 3\n")
    python.chmod(0o755)
    work = trl.Work("m", (), 8, 192, 64, 1e-6, (0.9, 0.95), 0.0, 1.0, 0)
    with pytest.raises(PartFailed, match="exit code 3: ImportError: no TRL"):
        trl.train(work, [trl.Variant(2, 192)], 4, tmp_path / "trl", "trial", python)


def test_the_command_line_knows_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["experiment", "peers", "tiny.yaml", "--rounds", "0"]) == 2
    assert "--rounds must be at least 1" in capsys.readouterr().err
