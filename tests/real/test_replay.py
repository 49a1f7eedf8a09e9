"""A replay gives the figures of the run bit by bit: the loss with all its parts, and steps trained again after a crash.

That of a run of Ray, vLLM and two ranks is held in test_run.py, which has one.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from azr.replay import differing
from azr.replay_plan import lineage
from azr.timeline import load_rows
from tests.real.conftest import ROOT

SETTINGS = [
    "algorithm.proposals=1",
    "algorithm.solves=1",
    "algorithm.samples=2",
    "algorithm.solve_samples=2",
    "algorithm.train_mc=2",
    "seeds.tasks=0",
    "learner.steps=5",
    "learner.save_every=2",
    "learner.loss=decoupled",
    "learner.minibatches=2",
    "learner.kl=0.01",
    "learner.entropy_bonus=0.01",
]


@pytest.mark.real
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_that_crashed_is_replayed_bit_by_bit(tiny_model: Path, tmp_path: Path, dtype: str) -> None:
    model = f"model.path={tiny_model}", f"model.dtype={dtype}"
    command = [sys.executable, "-m", "tests.real.trained", str(tmp_path), *model, *SETTINGS]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    again = json.loads(done.stdout.splitlines()[-1])
    rows = load_rows(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2, 2, 3, 4]
    recorded = lineage(rows)
    assert [differing(recorded[step], figures) for step, figures in enumerate(again)] == [[]] * 5
    assert {"loss", "grad_norm", "kl_reference"} <= recorded[4].keys() and recorded[4]["updates"] == 2
    assert len({figures["loss"] for figures in again}) == 5
