"""Sequences that share an engine, by hand: a step with c of them takes c tenths of a second."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from azr.simulation.engine import SimulatedEngine
from azr.simulation.virtual_time import run
from common.types import Span


def engine(slots: int = 99) -> SimulatedEngine:
    return SimulatedEngine(lambda c: c / 10, slots)


async def timed(made: SimulatedEngine, lengths: Sequence[int]) -> float:
    await made.generate(lengths)
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("slots", "first", "second"),
    [
        (2, 2.0, 3.0),  # side by side 0.2 s a token; the 10 that are left of the longer one take 0.1 s each
        (1, 1.0, 3.0),  # one after the other
    ],
)
def test_sequences_share_the_engine(slots: int, first: float, second: float) -> None:
    async def both() -> list[float]:
        made = engine(slots)
        return list(await asyncio.gather(timed(made, [10]), timed(made, [20])))

    assert run(both()) == pytest.approx([first, second])


def test_a_request_is_over_with_its_longest_sequence() -> None:
    async def one() -> float:
        return await timed(engine(), [10, 20])

    assert run(one()) == pytest.approx(3.0)


def test_nothing_is_decoded_in_a_pause_and_tokens_know_their_version() -> None:
    async def pushed() -> tuple[list[tuple[Span, ...]], float]:
        made = engine()
        request = asyncio.create_task(made.generate([10]))
        await asyncio.sleep(0.45)
        made.pause()
        await asyncio.sleep(5.0)
        made.resume(3)
        later = asyncio.create_task(made.generate([2]))
        spans = await request
        return [*spans, *await later], asyncio.get_running_loop().time()

    spans, seconds = run(pushed())
    assert spans == [(Span(0, 0, 4), Span(3, 4, 10)), (Span(3, 0, 2),)]
    assert seconds == pytest.approx(5.0 + 1.2)


def test_a_request_that_is_given_up_leaves_the_engine_to_others() -> None:
    async def given_up() -> float:
        made = engine()
        first = asyncio.create_task(made.generate([1000]))
        second = asyncio.create_task(timed(made, [10]))
        await asyncio.sleep(1.0)
        first.cancel()
        return await second

    assert run(given_up()) == pytest.approx(1.0 + 0.5)


@settings(max_examples=50, deadline=None)
@given(
    starts=st.lists(st.tuples(st.floats(0, 5), st.lists(st.integers(1, 30), min_size=1, max_size=4)), max_size=6),
    slots=st.integers(1, 5),
    pushes=st.lists(st.floats(0.01, 3), max_size=4),
)
def test_all_work_is_done_and_every_token_has_one_version(
    starts: list[tuple[float, list[int]]], slots: int, pushes: list[float]
) -> None:
    async def ask(made: SimulatedEngine, at: float, lengths: list[int]) -> None:
        await asyncio.sleep(at)
        for length, spans in zip(lengths, await made.generate(lengths), strict=True):
            edges = [0, *(edge for span in spans for edge in (span.start, span.end)), length]
            assert edges[::2] == edges[1::2] and edges == sorted(edges)
            assert [span.version for span in spans] == sorted(span.version for span in spans)

    async def everything() -> int:
        made = engine(slots)
        asked = asyncio.gather(*(ask(made, at, lengths) for at, lengths in starts))
        for version, after in enumerate(pushes, start=1):
            await asyncio.sleep(after)
            made.pause()
            await asyncio.sleep(0.1)
            made.resume(version)
        await asked
        return made.tokens

    assert run(everything()) == sum(sum(lengths) for _, lengths in starts)
