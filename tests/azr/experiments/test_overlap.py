"""The overlap experiment from its plan to its report, with a train command of known pace."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from azr.cli import parse
from azr.experiments.overlap import Plan, overlap, settings, warmup
from azr.experiments.pace import Pace, pace
from azr.experiments.pairs import BOTH, CELLS, LOCKSTEP, OVERLAP, Pair, targets
from azr.timeline import of
from common.config import load
from common.errors import ConfigError, PartFailed
from tests.fakes import paced_train
from tests.project import ROOT

FAKE = (sys.executable, "-m", "tests.fakes.paced_train")
PRESET = ROOT / "configs" / "overlap.yaml"
SETTINGS = ["learner.steps=9"]


def experiment(
    out: Path, pairs: int, *fake: str, resume: bool = False, more: tuple[str, ...] = ()
) -> tuple[bool, list[str]]:
    """Whether all went well, and what was said."""
    said: list[str] = []
    command = (*FAKE, *fake)
    went = overlap(PRESET, [*SETTINGS, *more], Plan(pairs), out, resume=resume, command=command, say=said.append)
    return went, said


def started(out: Path) -> list[str]:
    return [line for log in (out / "logs").glob("*.log") for line in log.read_text().splitlines() if "training" in line]


def results(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "results.json").read_text())
    return found


def table_of(out: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((out / "runs.csv").read_text().splitlines()))


# -- pace --------------------------------------------------------------------------------------------------------


def measured(eta: int, steps: int, cut: int, threads: int = 1) -> Pace | None:
    config = load(PRESET, [f"staleness.eta={eta}", f"learner.steps={steps}", f"learner.threads={threads}"])
    rows = [{"step": step, "sequences": 10.0 * step} for step in range(steps)]
    return pace(of(paced_train.events(config)), [*rows, {"version": 1}], cut, lockstep=eta == 0)


def test_lockstep_is_generating_then_training() -> None:
    """Steps end at 8s + 7.5 s; of nine, 3 to 7 lie behind the warm-up and end before the last batch."""
    found = measured(0, steps=9, cut=3)
    assert found is not None
    assert (found.steps, found.seconds, found.sequences, found.gained) == (5, 40.0, 10 * (3 + 4 + 5 + 6 + 7), 0)
    assert (found.generating, found.training, found.step, found.rate) == (4.0, 4.0, 8.0, 250 / 40)
    assert found.states["trainer-0"] == pytest.approx({"train": 3.5, "wait-batch": 4.5})
    assert found.states["actor-0"] == pytest.approx({"generate": 4.0, "wait-lease": 4.0})
    assert sum(found.path.values()) == pytest.approx(8.0)
    assert found.path["trainer-0 train"] == pytest.approx(3.5)
    assert found.path["actor-0 generate"] == pytest.approx(4.0)


def test_overlap_counts_what_is_trained_while_batches_are_still_made() -> None:
    """Batches are formed at 4.25 (s + 1), steps end 3.5 s later: 3 to 7 again, 4.25 s each."""
    found = measured(4, steps=9, cut=3)
    assert found is not None
    assert (found.steps, found.seconds, found.gained) == (5, 5 * 4.25, 0)
    assert (found.generating, found.training) == (0.0, 0.0)
    assert found.states["actor-0"] == pytest.approx({"generate": 4.25})


def test_two_steps_are_the_least_to_measure() -> None:
    assert measured(0, steps=5, cut=2) is not None
    assert measured(0, steps=5, cut=3) is None
    assert measured(4, steps=1, cut=1) is None


# -- pairs -------------------------------------------------------------------------------------------------------


def a_pace(rate: float, generating: float = 0.0, training: float = 0.0, seconds: float = 40.0) -> Pace:
    return Pace(10, seconds, round(rate * seconds), generating, training, 0, {}, {})


def test_a_pair_by_hand() -> None:
    """G 5 and T 4: at most 1.8 times, of which 1.71 are 95 %."""
    pair = Pair(0, a_pace(100, 5.0, 4.0, 90.0), a_pace(171), a_pace(150, 4.0, 2.0))
    assert pair.bound == pytest.approx(1.8)
    assert pair.balance == pytest.approx(0.25)
    assert pair.speedup == pytest.approx(1.71)
    assert pair.reached == pytest.approx(0.95)
    assert pair.over_both == pytest.approx(1.14)
    assert [target.met for target in targets([pair])] == [True, False, True, False]
    assert [target.met for target in targets([])] == [None] * 4


def test_targets_judge_medians_and_the_shortest_step() -> None:
    even = Pair(0, a_pace(100, 4.0, 4.0, 80.0), a_pace(185), a_pace(150))
    slow = dataclasses.replace(even, overlap=a_pace(150))
    assert [target.met for target in targets([even, slow, even])] == [True] * 4
    assert [target.met for target in targets([slow, slow, even])] == [True, True, False, False]
    short = dataclasses.replace(even, overlap=a_pace(185, seconds=29.0))
    assert [target.met for target in targets([even, short, even])] == [False, True, True, True]


# -- plan and cells ----------------------------------------------------------------------------------------------


def test_runs_of_a_pair_are_next_to_each_other_and_every_second_is_reversed() -> None:
    assert Plan(2).runs() == [(name, 0) for name in CELLS] + [(name, 1) for name in reversed(CELLS)]
    with pytest.raises(ConfigError, match="--pairs must be at least 1"):
        Plan(0)


def test_cells_differ_in_what_they_are_for_alone() -> None:
    config = load(PRESET, ["learner.steps=12"])
    alone, together, both = (load(PRESET, ["learner.steps=12", *settings(name, config)]) for name in CELLS)
    assert (alone.staleness.eta, together.staleness.eta, both.staleness.eta) == (0, 4, 0)
    longer = dataclasses.replace(alone.learner, steps=17)
    assert together == dataclasses.replace(alone, staleness=config.staleness, learner=longer)
    learner = dataclasses.replace(alone.learner, threads=2)
    assert both == dataclasses.replace(alone, learner=learner, cluster=both.cluster)
    assert set(dataclasses.asdict(both.cluster.cores).values()) == {"0,1"}
    assert warmup(config) == 4


def test_the_preset_binds_every_role_as_the_measurement_asks() -> None:
    cores = load(PRESET).cluster.cores
    assert dataclasses.asdict(cores) == {"actor": "0", "executor": "0", "intake": "1", "trainer": "1", "ray": "1"}


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("staleness.eta=0", "at least 1"),
        ("staleness.eta=-1", "at least 1"),
        ("eval.tasks=5", "are 0 here"),
        ("learner.save_every=5", "are 0 here"),
        ("cluster.cores.ray=''", "cluster.cores lacks ray"),
        ("run.name=mine", "run.name is the experiment's"),
        ("learner.kind=none", "nothing to overlap"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_starts(tmp_path: Path, setting: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        experiment(tmp_path / "out", 1, more=(setting,))
    assert not (tmp_path / "out").exists()


# -- runs --------------------------------------------------------------------------------------------------------


def test_from_plan_to_report(tmp_path: Path) -> None:
    went, said = experiment(tmp_path, 2)
    assert went
    assert len(started(tmp_path)) == 6
    found = results(tmp_path)
    assert [target["met"] for target in found["targets"]] == [True] * 4
    for pair, seed in zip(found["pairs"], (0, 1), strict=True):
        assert pair["seed"] == seed
        assert pair["bound"] == pytest.approx(2.0)
        assert pair["speedup"] == pytest.approx(8 / 4.25)
        assert pair["over_both"] == pytest.approx(6 / 4.25)
    rows = table_of(tmp_path)
    made = [(name, 0) for name in CELLS] + [(name, 1) for name in reversed(CELLS)]
    assert [(row["cell"], int(row["seed"])) for row in rows] == made
    assert [float(row["step"]) for row in rows[:3]] == pytest.approx([8.0, 4.25, 6.0])
    assert [(run["cell"], run["seed"]) for run in found["runs"]] == made
    table = (tmp_path / "table.md").read_text()
    assert said[-2] == table
    assert "met: overlap trains at least 1.8 times the sequences of lock-step (1.882 (1.882 to 1.882))" in table
    assert "| lock-step | 12.5 (12.5 to 12.5) | 8.00 (8.00 to 8.00) | 4.00 (4.00 to 4.00) | 4.00 (" in table
    assert f"| {OVERLAP} | 23.5 (23.5 to 23.5) | 4.25 (4.25 to 4.25) |  |  |" in table
    assert "| trainer-0 train | 3.500 | 3.500 | 1.500 |" in table
    assert "Runs that failed: none" in table
    picture = (tmp_path / "overlap.svg").read_text()
    assert picture.count("<polyline") == 2 * (5 + 2 * 4) + 4  # grid, four bars a pair; legend
    assert str(tmp_path) not in (tmp_path / "results.json").read_text()


def test_a_failing_run_loses_its_pair_alone_which_is_made_again_as_a_whole(tmp_path: Path) -> None:
    went, _ = experiment(tmp_path, 2, "--broken", f"{OVERLAP}-base1-seed1")
    assert not went
    assert [pair["seed"] for pair in results(tmp_path)["pairs"]] == [0]
    assert [(row["seed"], row["cell"]) for row in table_of(tmp_path)[3:]] == [("1", BOTH), ("1", LOCKSTEP)]
    (failure,) = results(tmp_path)["failures"]
    assert "executor-0: its process died" in failure and "RL seed 1" in failure and str(tmp_path) not in failure
    with pytest.raises(ConfigError, match="--resume"):
        experiment(tmp_path, 2)
    assert experiment(tmp_path, 2, resume=True)[0]
    again = Counter(line.partition("-base1-")[::2] for line in started(tmp_path))
    begun = Counter({cell.removeprefix("training "): count for (cell, end), count in again.items() if "seed1" in end})
    assert begun == dict.fromkeys(CELLS, 2) and len(started(tmp_path)) == 9
    assert not any("resumed" in line for line in started(tmp_path))
    assert sum(".failed1" in path.name for path in (tmp_path / "runs").iterdir()) == 3
    assert [pair["seed"] for pair in results(tmp_path)["pairs"]] == [0, 1]


def test_runs_too_short_to_measure_are_failures(tmp_path: Path) -> None:
    went, _ = experiment(tmp_path, 1, more=("learner.steps=3",))
    assert not went
    found = results(tmp_path)
    assert found["pairs"] == [] and len(found["failures"]) == 2  # the overlapping run is longer
    assert all("fewer than two steps" in line and str(tmp_path) not in line for line in found["failures"])
    assert [target["met"] for target in found["targets"]] == [None] * 4
    assert not (tmp_path / "overlap.svg").exists()


@pytest.mark.parametrize(
    ("name", "said"), [("batch", "mark of batch 4"), ("version", "mark of version 4"), ("row", "lacks step 4")]
)
def test_what_is_missing_of_a_run_is_said(name: str, said: str) -> None:
    config = load(PRESET, ["staleness.eta=0", "learner.steps=9"])
    rows = [{"step": step, "sequences": 10.0} for step in range(9) if (name, step) != ("row", 4)]
    events = [e for e in paced_train.events(config) if e.get("name") != name or 4 not in e["args"].values()]
    with pytest.raises(PartFailed, match=said):
        pace(of(events), rows, 3, lockstep=True)


def test_a_run_without_its_trace_is_a_failure_like_others(tmp_path: Path) -> None:
    assert experiment(tmp_path, 2)[0]
    (run,) = (path for path in (tmp_path / "runs").iterdir() if path.name.startswith(f"{OVERLAP}-base1-seed1"))
    (run / "trace.json").unlink()
    assert not experiment(tmp_path, 2, resume=True)[0]
    (failure,) = results(tmp_path)["failures"]
    assert "it has no trace.json" in failure and [pair["seed"] for pair in results(tmp_path)["pairs"]] == [0]


def test_the_command_line() -> None:
    parsed = parse(["experiment", "overlap", "learner.steps=5", "--pairs", "2"])
    assert (parsed.pairs, parsed.settings, parsed.out, parsed.resume) == (
        2,
        ["learner.steps=5"],
        Path("runs/overlap"),
        False,
    )


def test_the_pace_of_both_cores() -> None:
    found = measured(0, steps=9, cut=3, threads=2)
    assert found is not None and (found.generating, found.training) == (4.0, 2.0)
    assert {LOCKSTEP, OVERLAP, BOTH} == set(CELLS)
