"""The staleness experiment: its plan, its figures by hand, and from plan to report without a model."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from azr.cli import main
from azr.experiments.answers import Answers, Point
from azr.experiments.cells import Cell, Outcome
from azr.experiments.staleness import Loss, Plan, staleness
from azr.experiments.staleness_figures import RunFigures, Setting, results
from common.errors import ConfigError
from common.types import TASK_TYPES
from tests.fakes.train import leave
from tests.project import ROOT

PRESET = ROOT / "configs" / "tiny.yaml"
PPO, REINFORCE = Loss("ppo"), Loss("reinforce")


# -- plan --------------------------------------------------------------------------------------------------------


def test_all_settings_of_a_seed_come_before_the_next_seed() -> None:
    runs = list(Plan(etas=(0, 4), losses=(PPO, Loss("decoupled", 4)), seeds=2).runs())
    settings = [Setting("ppo", 0), Setting("ppo", 4), Setting("decoupled:4", 0), Setting("decoupled:4", 4)]
    assert runs == [(setting, seed) for seed in (0, 1) for setting in settings]


def test_all_runs_of_a_kv_policy_come_before_the_next_one() -> None:
    runs = list(Plan(etas=(1,), losses=(PPO,), kv=("keep", "recompute"), seeds=2).runs())
    assert [(setting.kv, seed) for setting, seed in runs] == [
        ("keep", 0),
        ("keep", 1),
        ("recompute", 0),
        ("recompute", 1),
    ]


def test_losses_are_named_with_their_minibatches() -> None:
    assert Loss.parse("decoupled:4") == Loss("decoupled", 4)
    assert [str(Loss.parse(text)) for text in ("ppo", "ppo:1", "tis:2")] == ["ppo", "ppo", "tis:2"]
    for wrong in ("pppo", "ppo:x", "ppo:-1", ""):
        with pytest.raises(ConfigError, match="--losses knows ppo, "):
            Loss.parse(wrong)


@pytest.mark.parametrize(
    ("option", "plan"),
    [
        ("--losses: ppo ", {"losses": (Loss.parse("ppo"), Loss.parse("ppo:1"))}),
        ("--etas: 4 ", {"etas": (4, 0, 4)}),
        ("--kv: keep ", {"kv": ("keep", "keep")}),
    ],
)
def test_a_setting_that_is_named_twice_would_count_as_more_seeds(option: str, plan: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=option):
        Plan(**plan)


# -- figures -----------------------------------------------------------------------------------------------------


def run(setting: Setting, seed: int, right: str, sizes: Sequence[float]) -> RunFigures:
    """Nothing right at version 0; at version 6 what `right` says of each task, for all types alike."""
    answers = Answers(
        {
            (Point(version, "standard"), t): {str(i): bool(version) and digit == "1" for i, digit in enumerate(right)}
            for version in (0, 6)
            for t in TASK_TYPES
        }
    )
    steps = [{"groups": 1.0, "learner/effective_sample_size": size, "staleness/mean": 4.0} for size in sizes]
    return RunFigures(setting, seed, answers, steps)


def test_figures_of_a_setting() -> None:
    zero, four = Setting("ppo", 0), Setting("ppo", 4)
    runs = [
        run(zero, 0, "1111", [1.0] * 6),
        run(zero, 1, "1110", [1.0] * 6),
        run(four, 0, "1100", [1.0, 1.0, 1.0, 1.0, 0.5, 0.7]),
        run(four, 1, "1110", [1.0, 1.0, 1.0, 1.0, 0.2, 0.2]),
    ]
    first, second = results(runs, 6)
    assert (first.setting, first.runs, first.before, first.against_zero) == (zero, 2, 0.0, None)
    assert first.after.mean == pytest.approx(7 / 8)
    assert second.after.mean == pytest.approx(5 / 8)
    assert second.types == {t.value: pytest.approx(5 / 8) for t in TASK_TYPES}
    assert second.against_zero is not None
    assert second.against_zero.mean == pytest.approx((-2 / 4 + 0) / 2)
    assert second.off_policy == {"staleness": 4.0, "effective_sample_size": pytest.approx((0.6 + 0.2) / 2)}
    assert second.curve == [(0, 0.0), (6, pytest.approx(5 / 8))]


def test_only_seeds_that_both_have_are_compared() -> None:
    zero, four, other = Setting("ppo", 0), Setting("ppo", 4), Setting("gspo", 4)
    found = results([run(zero, 1, "11", [1.0]), run(four, 0, "00", [1.0]), run(four, 1, "10", [1.0])], 6)
    assert found[1].against_zero is not None and found[1].against_zero.mean == pytest.approx(-0.5)
    assert results([run(zero, 1, "11", [1.0]), run(four, 0, "00", [1.0])], 6)[1].against_zero is None
    assert results([run(zero, 1, "11", [1.0]), run(other, 1, "00", [1.0])], 6)[1].against_zero is None


# -- from plan to report -----------------------------------------------------------------------------------------


def performing(
    broken: str = "no such run", interrupt: bool = False
) -> Callable[[Sequence[Cell], Path, Callable[[str], None]], list[Outcome]]:
    def perform(cells: Sequence[Cell], folder: Path, say: Callable[[str], None]) -> list[Outcome]:
        outcomes = []
        for cell in cells:
            run = folder / "runs" / cell.run
            run.mkdir(parents=True, exist_ok=True)
            leave(run, cell.config)
            outcomes.append(Outcome(cell, run, "its process died" if broken in cell.run else ""))
        if interrupt:
            raise KeyboardInterrupt
        return outcomes

    return perform


def test_from_plan_to_report(tmp_path: Path) -> None:
    said: list[str] = []
    plan = Plan(etas=(0, 16), losses=(REINFORCE, Loss("decoupled", 4)), seeds=2, steps=8)
    settings = ["eval.tasks=4", "learner.lr=1e-4"]
    assert staleness(PRESET, settings, plan, tmp_path, perform=performing(), say=said.append)
    table = (tmp_path / "table.md").read_text()
    assert "| reinforce | 0 | as configured | 2 | 1.000 | 1.000 | 1.000 | 1.000 | 1.000 … 1.000 |  |" in table
    assert "| decoupled:4 | 16 | as configured | 2 |" in table and "| +0.0 [+0.0, +0.0] |" in table
    assert "The 8 runs took 8 minutes" in table and table in said[-1]
    rows = list(csv.DictReader((tmp_path / "runs.csv").read_text().splitlines()))
    assert len(rows) == 8 * 2
    assert {(row["loss"], row["eta"], row["seed"]) for row in rows} == {
        (loss, eta, seed) for loss in ("reinforce", "decoupled:4") for eta in ("0", "16") for seed in ("0", "1")
    }
    assert {(row["version"], row["mean"]) for row in rows} == {("0", "0.5000"), ("8", "1.0000")}
    assert len(json.loads((tmp_path / "results.json").read_text())) == 4
    page = (tmp_path / "staleness.html").read_text()
    assert page.count("<svg") == 2 and page.count("<tr>") == 1 + 4 and "<td>decoupled:4</td>" in page
    grid, whiskers, lines = 5, 2 * 2, 2
    drawn = (tmp_path / "staleness.svg").read_text().count("<polyline")
    assert drawn == 3 * (grid + lines) + whiskers + lines  # and the legend


def test_cells_differ_in_what_is_compared_and_share_the_rest(tmp_path: Path) -> None:
    made: list[Cell] = []

    def perform(cells: Sequence[Cell], folder: Path, say: Callable[[str], None]) -> list[Outcome]:
        made.extend(cells)
        return performing()(cells, folder, say)

    plan = Plan(etas=(4,), losses=(Loss("decoupled", 4),), kv=("keep",), seeds=1, steps=8)
    staleness(PRESET, ["eval.tasks=4"], plan, tmp_path, perform=perform, say=lambda text: None)
    (cell,) = made
    config = cell.config
    assert (config.staleness.eta, config.staleness.mode, config.engine.kv) == (4, "exact", "keep")
    assert (config.learner.loss, config.learner.minibatches, config.learner.steps) == ("decoupled", 4, 8)
    assert (config.run.seed, config.eval.tasks) == (0, 4)


def test_a_failed_run_is_in_the_report_and_in_no_figure(tmp_path: Path) -> None:
    plan = Plan(etas=(0, 4), losses=(PPO,), seeds=1, steps=8)
    assert not staleness(PRESET, ["eval.tasks=4"], plan, tmp_path, perform=performing("eta4"), say=lambda text: None)
    table = (tmp_path / "table.md").read_text()
    assert "- ppo-x1-eta4, base seed 1, RL seed 0: its process died" in table
    assert "| ppo | 4 |" not in table and "| ppo | 0 |" in table


def test_nothing_but_failures_is_a_report_too(tmp_path: Path) -> None:
    plan = Plan(etas=(0,), losses=(PPO,), seeds=1, steps=8)
    assert not staleness(PRESET, ["eval.tasks=4"], plan, tmp_path, perform=performing("ppo"), say=lambda text: None)
    assert "its process died" in (tmp_path / "staleness.html").read_text()


def test_an_interrupted_experiment_says_how_to_go_on(tmp_path: Path) -> None:
    said: list[str] = []
    plan = Plan(etas=(0,), losses=(PPO,), seeds=1, steps=8)
    with pytest.raises(KeyboardInterrupt):
        staleness(PRESET, ["eval.tasks=4"], plan, tmp_path, perform=performing(interrupt=True), say=said.append)
    assert f"--resume --out {tmp_path}" in said[-1]
    with pytest.raises(ConfigError, match="--resume"):
        staleness(PRESET, ["eval.tasks=4"], plan, tmp_path, perform=performing(), say=said.append)
    assert staleness(PRESET, ["eval.tasks=4"], plan, tmp_path, perform=performing(), say=said.append, resume=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--seeds", "0"], "--seeds and --steps must be at least 1"),
        (["--etas", "0,x"], "--etas=0,x: write numbers"),
        (["--etas=-1"], "--etas must be 0 or more"),
        (["--losses", "pop"], "--losses knows ppo"),
        (["--kv", "drop"], "--kv knows recompute, keep, salt; not drop"),
        (["--kv", "keep,recompute"], "add staleness.mode=natural"),
        (["eval.tasks=0"], "eval.tasks=0 leaves nothing to compare"),
        (["run.name=x"], "run.name and seeds.load are the experiment's to set"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_starts(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", "staleness", "--out", str(tmp_path / "out"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
