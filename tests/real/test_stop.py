"""However a run ends, nothing of it is left, and it can be continued from its last checkpoint."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.real.conftest import ROOT, Runs
from tests.real.family import descendants

GRACE = 15.0  # seconds after which no process of a killed run may live


def until_checkpoint(process: subprocess.Popen[str], folder: Path) -> None:
    assert process.stdout is not None
    for _ in process.stdout:
        if (folder / "checkpoints" / "latest.json").exists():
            return
    raise AssertionError("the run ended before its first checkpoint")


def titles(pids: set[int]) -> dict[int, str]:
    """What each process calls itself, so that a survivor can be told from its number."""
    found = dict.fromkeys(pids, "ended")
    for pid in pids:
        with contextlib.suppress(OSError):
            found[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:80]
    return found


def survivors(pids: set[int], seconds: float) -> set[int]:
    """Wait for the ends of `pids`; those that have not ended after `seconds`."""
    deadline = time.monotonic() + seconds
    left = set()
    for pid in pids:
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        if not select.select([descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
            left.add(pid)
        os.close(descriptor)
    return left


@pytest.mark.real
def test_killed_driver_leaves_nothing_and_resumes(runs: Runs, rows: Callable[[Path], list[dict[str, Any]]]) -> None:
    settings = ["learner.steps=40", "learner.save_every=2"]
    process = runs.start("killed", *settings)
    folder = runs.folder / "killed"
    until_checkpoint(process, folder)
    family = titles(descendants(process.pid))
    process.kill()
    process.communicate()
    left = survivors(set(family), GRACE)
    assert left == set(), {pid: family[pid] for pid in left}

    saved = json.loads((folder / "checkpoints" / "latest.json").read_text())["step"]
    steps = saved + 2
    command = [sys.executable, "-m", "azr.cli", "train", "--resume", str(folder), f"learner.steps={steps}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr + runs.logs("killed")
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["version"] == steps
    resumed = [row["step"] for row in rows(folder)]
    assert resumed[-2:] == [saved, saved + 1]
    with sqlite3.connect(folder / "tasks.sqlite") as db:
        (still_open,) = db.execute("SELECT count(*) FROM leases WHERE fate IS NULL").fetchone()
        trained = dict(
            db.execute(
                "SELECT kind, count(*) FROM leases WHERE fate = 'trained' AND kind LIKE 'propose%' GROUP BY kind"
            )
        )
        (newest,) = db.execute("SELECT max(version) FROM events").fetchone()
    assert still_open == 0
    assert set(trained.values()) == {4 * steps}
    assert newest <= steps


@pytest.mark.real
def test_interrupt_stops_everything(runs: Runs) -> None:
    settings = ["learner.steps=1000", "learner.save_every=1", "engine.kind=async"]  # whose engine has child processes
    process = runs.start("interrupted", *settings)
    until_checkpoint(process, runs.folder / "interrupted")
    family = titles(descendants(process.pid))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=GRACE * 4)
    assert process.returncode == 130, output
    left = survivors(set(family), 0.0)
    assert left == set(), {pid: family[pid] for pid in left}
    assert (runs.folder / "interrupted" / "summary.json").exists()
