"""η = 0 is the synchronous system: bit-equal over runs, and bit-equal to a plain lock-step loop."""

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
    second = [row["learner/loss"] for row in rows(runs.finish("second", *EXACT))]
    assert len(first) == 3 and any(first)
    assert first == second
    folder = runs.folder / "lockstep"
    folder.mkdir()
    command = [sys.executable, "-m", "tests.real.lockstep", str(ROOT / "configs/tiny.yaml"), str(folder)]
    command += [f"model.path={runs.model}", *SMALL, *EXACT]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == first
