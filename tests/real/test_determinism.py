"""η = 0 is the synchronous system: bit-equal over runs, and bit-equal to a plain lock-step loop.

The second run is one of an experiment, on an engine that has been through another loss's run.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.real.conftest import ROOT, SMALL, Runs

EXACT = ["seeds.tasks=0", "staleness.eta=0", "engine.max_num_seqs=1", "engine.prefix_caching=false", "learner.steps=3"]


@pytest.mark.real
def test_eta_zero_equals_lockstep(runs: Runs, rows: Callable[[Path], list[dict[str, Any]]]) -> None:
    first = [row["learner/loss"] for row in rows(runs.finish("first", *EXACT))]
    other, second = ([row["learner/loss"] for row in rows(run)] for run in swept(runs))
    assert len(first) == 3 and any(first)
    assert first == second != other
    folder = runs.folder / "lockstep"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.real.lockstep", str(ROOT / "configs/tiny.yaml"), str(folder)]
    command += [f"model.path={runs.model}", *SMALL, *EXACT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == first


def swept(runs: Runs) -> list[Path]:
    """The folders of a run with another loss, and of one as the first, which finds its engine."""
    out = runs.folder / "sweep"
    command = [sys.executable, "-m", "azr.cli", "experiment", "staleness", f"--out={out}", "--etas=0", "--seeds=1"]
    settings = [f"model.path={runs.model}", *SMALL, *EXACT, "eval.tasks=1"]
    done = subprocess.run(
        [*command, "--losses=gspo,ppo", *settings], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = {path.name.split("-")[0]: path for path in (out / "runs").iterdir()}
    return [found["gspo"], found["ppo"]]
