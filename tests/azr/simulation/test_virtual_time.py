"""Time that passes only when everybody waits for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from azr.simulation.virtual_time import Stuck, VirtualClock, run


def test_a_year_is_over_at_once_and_sleepers_wake_in_order() -> None:
    clock, woken = VirtualClock(), list[tuple[str, float]]()

    async def sleeper(name: str, seconds: float) -> None:
        await clock.sleep(seconds)
        woken.append((name, clock.now()))

    async def everybody() -> float:
        await asyncio.gather(sleeper("late", 3.0e7), sleeper("early", 0.5), sleeper("middle", 60.0))
        return clock.now()

    began = time.monotonic()
    assert run(everybody()) == pytest.approx(3.0e7)
    assert time.monotonic() - began < 60
    assert [name for name, _ in woken] == ["early", "middle", "late"]
    assert [at for _, at in woken[:2]] == pytest.approx([0.5, 60.0])


def test_time_out_and_cancel_as_in_any_loop() -> None:
    async def waits() -> float:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.sleep(10), 4)
        return asyncio.get_running_loop().time()

    assert run(waits()) == pytest.approx(4.0)


def test_who_waits_for_nobody_is_told_so() -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    with pytest.raises(Stuck, match="nobody has anything left to do"):
        run(forever())
