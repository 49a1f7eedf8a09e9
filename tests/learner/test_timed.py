"""The intake's own ledger: every part of a step is at work in its own state, and none is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from common import messages as m
from learner.timed import STATES, Timed
from tests.fakes.peers import Stage, small


async def test_a_step_goes_through_the_states_of_the_intake(tmp_path: Path) -> None:
    stage = Stage(small(), tmp_path)
    stage.front = Timed(stage.intake, stage.intake.tally)
    begin = stage.intake.tally.now()
    try:
        await stage.begin(0)
        await stage.poll("trainer", 0, m.WantShare(0, 0))
        waiting = await stage.poll("actor", 0, m.WantLeases(9))
        assert not stage.intake.tally.drain()[0].get("batch")
        await stage.fulfil(waiting.result().leases)
        await stage.train(0)
        assert stage.intake.tally.state == "idle"  # a poll that waits is no work
        totals, spans = stage.intake.tally.drain()
        assert set(totals) == {"idle", "admit", "journal", "batch", "step", "push"}
        assert sum(totals.values()) == pytest.approx(stage.intake.tally.now() - begin, rel=0.01, abs=0.01)
        assert {state for state, _, _ in spans} <= set(totals)
    finally:
        await stage.crash()


def test_every_request_of_a_peer_of_the_intake_has_a_state() -> None:
    asked = {m.WantLeases, m.Renew, m.Deliver, m.AskNovelty, m.WantShare, m.StepDone, m.CheckpointDone}
    assert set(STATES) == asked | {m.WantPush, m.Offer, m.Published, m.Staged, m.Committed, m.Report}
