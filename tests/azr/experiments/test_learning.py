"""The learning experiment from its plan to its report, with a train command that takes a moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from azr.base import grammar
from azr.cli import main, parse
from azr.experiments.controls import CELLS, settings
from azr.experiments.learning import Plan, learning
from common import seed_rows
from common.config import Config, load
from common.errors import ConfigError
from common.types import TASK_TYPES
from tests.project import ROOT

FAKE = (sys.executable, "-m", "tests.fakes.train")
PRESET = ROOT / "configs" / "tiny.yaml"
SETTINGS = ["eval.tasks=4", "eval.harder=4", "algorithm.proposals=2"]


def experiment(
    out: Path, plan: Plan, *fake: str, resume: bool = False, more: tuple[str, ...] = ()
) -> tuple[bool, list[str]]:
    """Whether all went well, and what was said."""
    said: list[str] = []
    went = learning(PRESET, [*SETTINGS, *more], plan, out, resume=resume, command=(*FAKE, *fake), say=said.append)
    return went, said


def started(out: Path) -> list[str]:
    """A line per training process, in no order."""
    return [line for log in (out / "logs").glob("*.log") for line in log.read_text().splitlines() if "training" in line]


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


# -- plan and cells ----------------------------------------------------------------------------------------------


def test_controls_run_on_the_first_base() -> None:
    runs = list(Plan(seeds=2, bases=2, only=("shuffled", "azr")).runs())
    assert runs == [("azr", b, s) for b in (0, 1) for s in (0, 1)] + [("shuffled", 0, 0), ("shuffled", 0, 1)]
    assert list(Plan(seeds=3, bases=1, control_seeds=1, only=("grammar",)).runs()) == [("grammar", 0, 0)]
    assert {name for name, _, _ in Plan().runs()} == set(CELLS)


def resolved(name: str, tmp_path: Path, *overrides: str) -> Config:
    return load(PRESET, [*overrides, *settings(name, load(PRESET, overrides), tmp_path)])


def test_each_control_takes_one_thing_away(tmp_path: Path) -> None:
    plain = load(PRESET)
    assert settings("azr", plain, tmp_path) == []
    assert resolved("shuffled", tmp_path).algorithm.shuffle_rewards
    assert not resolved("frozen-proposer", tmp_path).algorithm.train_propose
    seeds = resolved("seeds-only", tmp_path, "learner.steps=30", "algorithm.proposals=5")
    assert (seeds.seeds.tasks, seeds.seeds.load, seeds.algorithm.proposals) == (150, "", 0)
    assert seeds.seeds.tries >= 8 * 150


@pytest.mark.parametrize(("train_mc", "solves"), [(6, 18), (0, 6), (3, 12)])
def test_controls_without_proposals_train_as_many_sequences(tmp_path: Path, train_mc: int, solves: int) -> None:
    """12 · (1 + train_mc) + 4 · 6 per type: 108, 36 and 72 in answers to book tasks, 6 each."""
    sizes = (
        "algorithm.proposals=12",
        "algorithm.solves=4",
        "algorithm.solve_samples=6",
        f"algorithm.train_mc={train_mc}",
    )
    algorithm = resolved("seeds-only", tmp_path, *sizes).algorithm
    assert (algorithm.proposals, algorithm.solves, algorithm.solve_samples) == (0, solves, 6)


def test_tasks_from_the_grammar(tmp_path: Path) -> None:
    config = resolved("grammar", tmp_path, "learner.steps=5", "algorithm.proposals=8", "run.seed=3")
    rows = [json.loads(line) for line in Path(config.seeds.load).read_text().splitlines()]
    assert len(rows) == len(seed_rows.read(Path(config.seeds.load))) == 3 * 40
    for task_type in TASK_TYPES:
        programs = [row["program"] for row in rows if row["type"] == task_type]
        assert len(set(programs)) == len(programs) == 40
        assert not any(map(grammar.is_held_out, programs))
        assert {program.count("\n") - 1 for program in programs} == set(range(1, 4 if task_type == "induction" else 6))
    for row in rows:
        program = grammar.parse(row["program"])
        assert program is not None
        assert [str(program.output(int(given))) for given in row["inputs"]] == row["outputs"]
        assert len({program.output(value) for value in grammar.DIGITS}) > 1
        induction = row["type"] == "induction"
        assert len(row["inputs"]) == len(set(row["inputs"])) == (config.environment.inputs if induction else 1)


# -- runs --------------------------------------------------------------------------------------------------------


def test_from_plan_to_report(tmp_path: Path) -> None:
    plan = Plan(seeds=2, bases=2, control_seeds=1, steps=8, only=("azr", "shuffled"))
    went, said = experiment(tmp_path, plan)
    assert went
    assert len(started(tmp_path)) == 5
    found = results(tmp_path)
    deduction = {name: cell["changes"]["standard"]["deduction"] for name, cell in found["cells"].items()}
    assert list(deduction) == ["azr", "shuffled", "azr, base 0", "azr, base 1", "forced"]
    assert deduction["azr"] == {"before": 0.5, "after": 1.0, "gain": deduction["azr"]["gain"]}
    assert (deduction["azr"]["gain"]["mean"], deduction["shuffled"]["after"], deduction["forced"]["after"]) == (
        0.5,
        0.5,
        0.75,
    )
    sizes = {name: (cell["bases"], cell["runs"]) for name, cell in found["cells"].items()}
    assert (sizes["azr"], sizes["azr, base 1"], sizes["shuffled"]) == ((2, 4), (1, 2), (1, 1))
    assert [target["met"] for target in found["targets"]] == [True, True, True, False, False, True, True, True]
    assert {(r["cell"], r["base"], r["seed"]) for r in found["runs"]} == set(plan.runs())
    table = (tmp_path / "table.md").read_text()
    assert said[-2] == table
    assert "met: deduction gains at least 20 points (deduction +50.0 [" in table
    assert "| azr | 2 | 4 | harder | mean | 0.500 | 1.000 | +50.0 [" in table
    assert "| forced | 2 | 4 | standard | abduction | 0.500 | 0.750 |" in table
    assert "Proposals that collapsed: none" in table
    assert "| shuffled | standard | deduction | -50.0 [" in table and "| azr | 48 | 0 |" in table
    assert "| deduction | valid | 0.900 | 0.900 | 0.900 |" in table
    picture = (tmp_path / "learning.svg").read_text()
    assert picture.count("<polyline") == 3 * (5 + 2 + 4 + 2) + 4  # grid, forced and first base, runs, means; legend
    picture = (tmp_path / "proposals.svg").read_text()
    assert picture.count("<polyline") == 3 * (5 + 3 * (4 + 1)) + 3  # grid, four runs and their mean; legend
    assert str(tmp_path) not in (tmp_path / "results.json").read_text()
    for run in found["runs"]:
        config = load(tmp_path / run["folder"] / "config.yaml")
        assert (config.model.base_seed, config.run.seed, config.learner.steps) == (run["base"], run["seed"], 8)
        assert (config.eval.forced, config.algorithm.shuffle_rewards) == (True, run["cell"] == "shuffled")


def test_what_is_finished_is_not_run_again_and_what_differs_is(tmp_path: Path) -> None:
    plan = Plan(seeds=1, bases=1, steps=8, only=("azr",))
    experiment(tmp_path, plan)
    with pytest.raises(ConfigError, match="--resume"):
        experiment(tmp_path, plan)
    assert experiment(tmp_path, plan, resume=True)[0]
    assert len(started(tmp_path)) == 1
    assert experiment(tmp_path, plan, resume=True, more=("learner.lr=1e-3",))[0]
    assert len(started(tmp_path)) == 2


def test_a_run_that_fails_is_reported_and_the_others_go_on(tmp_path: Path) -> None:
    plan = Plan(seeds=2, bases=1, steps=8, only=("azr", "shuffled"))
    went, said = experiment(tmp_path, plan, "--broken", "azr-base0-seed0")
    assert not went
    assert len(started(tmp_path)) == 4
    (failed,) = [run for run in results(tmp_path)["runs"] if run["failure"]]
    assert (failed["cell"], failed["seed"]) == ("azr", 0)
    assert "exit code 1: azr: executor-0: its process died" in failed["failure"]
    assert results(tmp_path)["cells"]["azr"]["runs"] == 1
    assert "- azr, base seed 0, RL seed 0: ended with exit code 1" in said[-2]
    assert experiment(tmp_path, plan, resume=True)[0]
    assert len(started(tmp_path)) == 5
    assert results(tmp_path)["cells"]["azr"]["runs"] == 2


def test_nothing_but_failures_is_a_report_too(tmp_path: Path) -> None:
    assert not experiment(tmp_path, Plan(seeds=1, bases=1, only=("azr",)), "--broken", "azr")[0]
    assert [target["met"] for target in results(tmp_path)["targets"]] == [None] * 8


def test_a_run_that_has_a_checkpoint_goes_on_from_there(tmp_path: Path) -> None:
    plan = Plan(seeds=1, bases=1, steps=8, only=("azr",))
    assert not experiment(tmp_path, plan, "--interrupted", "azr")[0]
    assert experiment(tmp_path, plan, resume=True)[0]
    assert [line.split()[-1] for line in started(tmp_path)] == ["begun", "resumed"]


def test_a_run_that_only_lacks_its_last_evaluation_is_begun_again_and_its_remains_are_kept(tmp_path: Path) -> None:
    plan = Plan(seeds=1, bases=1, steps=8, only=("azr",))
    experiment(tmp_path, plan)
    (run,) = (tmp_path / "runs").iterdir()
    (run / "summary.json").write_text(json.dumps({"version": 7}))
    assert experiment(tmp_path, plan, resume=True)[0]
    assert {path.name for path in (tmp_path / "runs").iterdir()} == {run.name, f"{run.name}.failed1"}
    assert json.loads((tmp_path / "runs" / f"{run.name}.failed1" / "summary.json").read_text()) == {"version": 7}


# -- ends --------------------------------------------------------------------------------------------------------

DRIVER = """
import sys
from pathlib import Path
from azr.cli import run
from azr.experiments.learning import Plan, learning
preset, out, fifo = map(Path, sys.argv[1:])
command = (sys.executable, "-m", "tests.fakes.train", "--wait", str(fifo))
sys.exit(run(lambda: learning(preset, [], Plan(1, 1, only=("azr",)), out, command=command)))
"""


@pytest.mark.parametrize(
    ("how", "said", "code"),
    [
        (signal.SIGINT, "interrupted\n", 130),
        (signal.SIGTERM, "interrupted\n", 130),
        (signal.SIGKILL, "", -signal.SIGKILL),
    ],
)
def test_no_run_outlives_its_experiment(tmp_path: Path, how: signal.Signals, said: str, code: int) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(PRESET), str(tmp_path / "out"), str(fifo)], cwd=ROOT, stdout=subprocess.PIPE
    )
    with fifo.open() as line:
        assert int(line.readline()) != driver.pid
        driver.send_signal(how)
        assert line.read() == said  # to its end: nobody holds the other side any more
    driver.communicate()
    assert driver.returncode == code


# -- command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds must be at least 1"),
        (["--control-seeds", "0"], "--control-seeds must be at least 1"),
        (["--only", "azr,forced"], "--only knows azr, shuffled, frozen-proposer, grammar, seeds-only; not forced"),
        (["eval.tasks=0"], "eval.tasks=0 leaves nothing to compare"),
        (["run.name=x"], "run.name and seeds.load are the experiment's to set"),
        (["learner.stpes=3"], "did you mean learner.steps?"),
        (["nowhere.yaml"], "no configuration file nowhere.yaml"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", "learning", "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_settings_may_stand_anywhere() -> None:
    parsed = parse(["experiment", "learning", "tiny.yaml", "a.b=1", "--seeds", "2", "c.d=2", "--resume"])
    assert (parsed.settings, parsed.seeds, parsed.resume) == (["tiny.yaml", "a.b=1", "c.d=2"], 2, True)
