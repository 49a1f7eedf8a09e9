"""`azr bench` on real parts: the engine alone, two trainer ranks, pushes. What it makes of whole runs: test_run.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.real.conftest import ROOT

PARTS = "engine,learner,push"


@pytest.mark.real
def test_every_part_gives_figures(tiny_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = ["bench", "tiny.yaml", "--quick", "--only", PARTS, "--out", str(out)]
    settings = [f"model.path={tiny_model}", "learner.ranks=2", "learner.zero_stage=2"]
    done = subprocess.run(
        [sys.executable, "-m", "azr.cli", *words, *settings], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    logs = "\n".join(f"== {path.name}\n{path.read_text()[-2000:]}" for path in out.rglob("*.log"))
    assert done.returncode == 0, done.stdout + done.stderr + logs
    found = json.loads((out / "bench.json").read_text())
    values = {(f["section"], f["what"]): f["values"] for f in found["figures"]}
    assert all(len(repeats) == 1 for repeats in values.values())
    assert values["engine", "tokens"][0] > 0 and values["engine", "groups under way"] == [64]
    assert all(values["learner", phase][0] > 0 for phase in ("step", "forward", "backward", "update"))
    assert values["learner", "model FLOPs"][0] > 0 and 0 <= values["learner", "padding"][0] < 100
    stage, pause, load = (
        values["push", f"gloo, into an idle engine: {name}"][0] for name in ("stage", "pause", "load")
    )
    assert stage > 0 and 0 < load <= pause
    assert ("learner", "MFU") not in values  # of no GPU
    assert "not measured" not in done.stdout
