"""States that change often: their lengths are kept, and what waits is not at work."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.tally import Tally


class Time:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_the_spans_of_a_drain_are_one_per_state() -> None:
    now = Time()
    tally = Tally("idle", now)
    for _ in range(3):
        now.at += 0.5
        with tally.during("admit"):
            now.at += 0.25
            with tally.during("journal"):
                now.at += 1.0
            now.at += 0.25
    totals, spans = tally.drain()
    assert totals == {"idle": 1.5, "admit": 1.5, "journal": 3.0}
    assert spans == (("idle", 100.0, 101.5), ("admit", 101.5, 103.0), ("journal", 103.0, 106.0))
    now.at += 2.0
    assert tally.drain() == ({"idle": 3.5, "admit": 1.5, "journal": 3.0}, (("idle", 106.0, 108.0),))


def test_an_error_leaves_its_state() -> None:
    tally = Tally("idle", Time())
    with pytest.raises(KeyError), tally.during("admit"):
        raise KeyError
    assert tally.state == "idle"


async def test_a_coroutine_is_in_its_state_while_it_runs() -> None:
    now = Time()
    tally = Tally("idle", now)
    gate = asyncio.Event()
    seen: list[str] = []

    async def inner() -> int:
        now.at += 1.0
        seen.append(tally.state)
        await gate.wait()
        seen.append(tally.state)
        now.at += 2.0
        return 7

    async def outer() -> int:
        now.at += 0.5
        found = await tally.running("admit", inner())
        seen.append(tally.state)
        return found

    work = asyncio.create_task(tally.running("transport", outer()))
    await asyncio.sleep(0)
    assert seen == ["admit"] and tally.state == "idle"
    now.at += 10.0
    gate.set()
    assert await work == 7
    assert seen == ["admit", "admit", "transport"] and tally.state == "idle"
    assert tally.drain()[0] == {"idle": 10.0, "transport": 0.5, "admit": 3.0}


async def test_errors_and_cancellations_reach_the_work() -> None:
    tally = Tally()
    ended: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(tally.state)

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("no")

    work = asyncio.create_task(tally.running("admit", waits()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert ended == ["admit"]
    with pytest.raises(ValueError, match="no"):
        await tally.running("admit", fails())
    assert tally.state == "idle"


steps = st.lists(st.tuples(st.floats(0.0, 10.0), st.sampled_from(["a", "b", "out", "drain"])), max_size=40)


@given(steps)
def test_states_sum_to_the_time_that_passed(sequence: list[tuple[float, str]]) -> None:
    now = Time()
    tally = Tally("idle", now)
    spans: list[tuple[str, float, float]] = []
    for seconds, what in sequence:
        now.at += seconds
        if what == "drain":
            spans += tally.drain()[1]
        else:
            tally.enter(what)
    totals, rest = tally.drain()
    spans += rest
    assert sum(totals.values()) == pytest.approx(now.at - 100.0)
    assert [begin for _, begin, _ in spans[1:]] == pytest.approx([end for _, _, end in spans[:-1]])
    for state, seconds in totals.items():
        assert sum(e - b for s, b, e in spans if s == state) == pytest.approx(seconds)
