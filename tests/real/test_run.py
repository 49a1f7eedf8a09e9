"""A whole run on real parts: Ray, vLLM, DeepSpeed on two ranks, two executor shards, gloo pushes, a late actor."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from azr.bench import run as bench
from tests.real.conftest import ROOT, Runs

WIDE = [
    "engine.actors=2",
    "engine.join_after=1",
    "engine.checksums=true",
    "learner.ranks=2",
    "learner.zero_stage=2",
    "executor.shards=2",
    "learner.steps=3",
    "eval.tasks=8",
]


@pytest.mark.real
def test_two_of_everything(runs: Runs, rows: Callable[[Path], list[dict[str, Any]]]) -> None:
    folder = runs.finish("wide", *WIDE)
    summary = json.loads((folder / "summary.json").read_text())
    assert [row["step"] for row in rows(folder)] == [0, 1, 2]
    assert summary["version"] == 3
    measured = {reading.what: reading.value for reading in bench.readings(folder, eta=0)}
    assert measured["trained sequences"] > 0 and measured["push, pause"] > 0
    assert 0 < measured["trainer-1 busy by ledger"] <= 100

    assert [(r["version"], r["asked"]["deduction"]) for r in summary["evaluation"]] == [(0, 8), (3, 8)]

    last = summary["checksums"]
    assert last["version"] == 3 and set(last["actors"]) == {"actor-0", "actor-1"}
    assert len(set(last["actors"].values())) == 1, last

    with sqlite3.connect(folder / "tasks.sqlite") as db:
        fates = db.execute("SELECT kind, fate, count(*) FROM leases GROUP BY kind, fate").fetchall()
    assert all(fate is not None for _, fate, _ in fates), fates
    trained = {kind: count for kind, fate, count in fates if fate == "trained"}
    assert {kind: n for kind, n in trained.items() if kind.startswith("propose")} == {
        f"propose/{t}": 12 for t in ("deduction", "abduction", "induction")
    }
    assert (folder / "checkpoints" / "step-000003" / "hf" / "model.safetensors").exists()

    before = contents(folder)
    replayed = subprocess.run(
        [sys.executable, "-m", "azr.cli", "replay", str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
    assert "from the base model, on 2 trainer ranks" in replayed.stdout
    assert "all figures of 3 steps equal" in replayed.stdout
    assert contents(folder) == before


def contents(folder: Path) -> dict[Path, tuple[int, int]]:
    """Size and last change of every file."""
    return {path: (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}
