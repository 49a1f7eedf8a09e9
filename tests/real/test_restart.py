"""A rollout actor and an executor shard that die are started again; the run goes on and loses no lease.

Over TCP with CURVE, so that new keys are part of it.
"""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.real.conftest import Runs, output_until, tells_a_step
from tests.real.family import descendants, named

STEPS = 40


@pytest.mark.real
def test_dead_actor_and_shard_are_replaced(runs: Runs) -> None:
    process = runs.start("restart", f"learner.steps={STEPS}", "learner.save_every=0", "cluster.transport=tcp")
    output = output_until(process, tells_a_step)
    family = descendants(process.pid)
    for name in ("ActorProcess", "ShardProcess"):
        os.kill(named(family, name), signal.SIGKILL)
    rest, _ = process.communicate(timeout=400)
    output += rest
    assert process.returncode == 0, output + runs.logs("restart")
    assert "actor-0 failed and is started again" in output
    assert "executor-0 failed and is started again" in output
    summary = json.loads((runs.folder / "restart" / "summary.json").read_text())
    assert summary["version"] == STEPS
    assert "open" not in summary["leases"]
