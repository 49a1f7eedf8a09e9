"""The intake is killed in the middle of a run; it is started again, nothing else is, and every lease ends once."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections import Counter

import pytest

from tests.real.conftest import SMALL, Runs, output_until, tells_a_step
from tests.real.family import descendants, named

STEPS = 40
GROUPS = 3 * sum(int(s.partition("=")[2]) for s in SMALL if s.startswith(("algorithm.proposals", "algorithm.solves")))


@pytest.mark.real
def test_an_intake_that_dies_is_replaced_and_loses_no_group(runs: Runs) -> None:
    process = runs.start("restart", f"learner.steps={STEPS}", "learner.save_every=10")
    output = output_until(process, tells_a_step)
    family = descendants(process.pid)
    others = {name: named(family, name) for name in ("ActorProcess", "TrainerProcess")}
    os.kill(named(family, "IntakeProcess"), signal.SIGKILL)
    output += output_until(process, lambda line: "started again" in line)
    assert {name: named(descendants(process.pid), name) for name in others} == others
    rest, _ = process.communicate(timeout=400)
    output += rest
    assert process.returncode == 0, output + runs.logs("restart")
    assert "intake failed and is started again" in output
    folder = runs.folder / "restart"
    assert json.loads((folder / "summary.json").read_text())["version"] == STEPS
    db = sqlite3.connect(folder / "tasks.sqlite")
    rows = db.execute("SELECT fate, step FROM leases").fetchall()
    db.close()
    assert None not in {fate for fate, _ in rows}
    assert Counter(step for fate, step in rows if fate == "trained") == dict.fromkeys(range(STEPS), GROUPS)
    steps = {
        row["step"] for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if "seconds" in row
    }
    assert steps == set(range(STEPS))
