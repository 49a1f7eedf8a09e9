"""What a shard is at, by hand, and with real sandboxed processes."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from common.config import ExecutorConfig
from common.jobs import Validate
from common.ledger import Ledger
from common.types import Status
from executor.busy import Busy
from executor.shard import Shard


@pytest.mark.parametrize(
    ("asked", "state"),
    [([], "idle"), (["check"], "check"), (["check", "run", "check"], "run"), (["run", "run"], "run")],
)
def test_the_first_state_that_holds(asked: list[str], state: str) -> None:
    ledger = Ledger("idle")
    busy = Busy(ledger)
    with ExitStack() as stack:
        for what in asked:
            stack.enter_context(busy.during(what))
        assert ledger.state == state
    assert ledger.state == "idle"


async def test_a_job_is_checked_then_run_and_what_is_remembered_is_neither() -> None:
    ledger = Ledger("idle")
    shard = Shard(ExecutorConfig(memory_mb=128), ledger=ledger)
    await shard.start()
    try:
        ledger.drain()
        job = Validate("def f(x):\n    return x + 1", ("1",))
        assert (await shard.validate(job)).status == Status.OK
        states = [state for state, _, _ in ledger.drain()[1]]
        assert states[0] == "idle" and states[1] == "check" and "run" in states and ledger.state == "idle"
        await shard.validate(job)
        assert [state for state, _, _ in ledger.drain()[1]] == ["idle"]
    finally:
        await shard.close()
