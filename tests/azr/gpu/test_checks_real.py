"""The checks for GPUs, run on a CPU with tiny shapes: the same code on real parts.

`zero`, `speed` and `loop` are left to `check_all`: the first trains as `packing` does, and
tests/learner/test_trainer_real.py compares stages; the others are `azr bench`, which has tests of its own.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.project import ROOT

pytestmark = pytest.mark.real
# Claims that hold, and those that only a GPU can answer.
EXPECTED = {"packing": (3, 0), "push": (10, 3), "run": (7, 0), "memory": (6, 0)}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_check_holds_on_a_cpu(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"azr.experiments.gpu.check_{name}", "--device", "cpu"]
    command += ["--out", str(tmp_path / "out.json"), "--work", str(tmp_path / "work")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    claims = json.loads((tmp_path / "out.json").read_text())["claims"]
    results = [claim["result"] for claim in claims]
    assert (results.count("PASS"), results.count("NOT RUN")) == EXPECTED[name], done.stdout
    assert len(results) == sum(EXPECTED[name])
