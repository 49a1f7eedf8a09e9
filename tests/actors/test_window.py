"""The window of open episodes on a clock that the test moves."""

from __future__ import annotations

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from actors.window import PERIOD, Window
from tests.fakes.clock import FakeClock

SLOTS, MOST = 64, 100
QUEUED = 2 * SLOTS + 1  # samples in flight when the queue is too long


class Watched:
    def __init__(self, slots: int = SLOTS, most: int = MOST) -> None:
        self.clock = FakeClock()
        self.window = Window(slots, most, self.clock)

    async def hold(self, seconds: float, running: int, *, room: int = 9, open_episodes: int | None = None) -> int:
        """The size after `seconds` of the same."""
        opened = self.window.size if open_episodes is None else open_episodes
        self.window.note(running, room, opened)
        await self.clock.advance(seconds)
        self.window.note(running, room, opened)
        return self.window.size


async def test_it_begins_with_an_episode_for_every_slot() -> None:
    assert Watched().window.size == SLOTS
    assert Watched(slots=64, most=10).window.size == 10


async def test_a_queue_in_front_of_the_engine_takes_an_eighth() -> None:
    assert await Watched().hold(PERIOD, QUEUED) == 64 - 8


async def test_an_executor_without_credits_takes_an_eighth() -> None:
    assert await Watched().hold(PERIOD, 3, room=0) == 64 - 8


async def test_a_free_slot_while_all_that_it_allows_is_open_gives_a_32nd_of_the_slots() -> None:
    assert await Watched().hold(PERIOD, SLOTS - 1) == 64 + 2


async def test_taken_slots_and_a_queue_no_longer_than_they_are_right() -> None:
    for running in (SLOTS, 2 * SLOTS):
        assert await Watched().hold(PERIOD, running) == 64


async def test_where_leases_are_short_it_stays() -> None:
    assert await Watched().hold(PERIOD, 1, open_episodes=SLOTS - 1) == 64


async def test_half_of_a_period_decides_and_what_was_before_it_is_forgotten() -> None:
    watched = Watched()
    watched.window.note(QUEUED, 9, SLOTS)
    await watched.clock.advance(0.4 * PERIOD)
    assert await watched.hold(0.6 * PERIOD, SLOTS) == 64
    watched.window.note(QUEUED, 9, SLOTS)
    await watched.clock.advance(0.5 * PERIOD)
    assert await watched.hold(0.5 * PERIOD, SLOTS) == 56


async def test_a_cut_is_given_time_to_take_effect() -> None:
    """More episodes than it allows go on: only when those are over does it say anything about the new size."""
    watched = Watched()
    assert await watched.hold(PERIOD, QUEUED) == 56
    for opened in (64, 60, 57):
        assert await watched.hold(PERIOD, QUEUED, open_episodes=opened) == 56
        assert await watched.hold(PERIOD, 3, room=0, open_episodes=opened) == 56
    assert await watched.hold(PERIOD, QUEUED, open_episodes=56) == 49


async def test_it_is_adjusted_once_per_period() -> None:
    watched = Watched()
    for _ in range(7):
        await watched.hold(PERIOD / 8, QUEUED)
    assert watched.window.size == 64
    assert await watched.hold(PERIOD / 8, QUEUED) == 56


async def test_it_comes_to_rest_below_its_bound_when_each_episode_takes_as_many_slots() -> None:
    """5 samples an episode: 128 samples are as many as there may be, give or take a cut."""
    watched, sizes = Watched(), list[int]()
    for _ in range(200):
        sizes.append(await watched.hold(PERIOD, 5 * watched.window.size))
    assert all(12 <= size <= 26 for size in sizes[20:])


PERIODS = st.lists(st.tuples(st.floats(0, 3), st.integers(0, 200), st.integers(0, 5), st.integers(0, 200)), max_size=60)


@given(slots=st.integers(1, 300), credits=st.integers(1, 300), notes=PERIODS)
def test_it_keeps_its_bounds(slots: int, credits: int, notes: list[tuple[float, int, int, int]]) -> None:
    async def play() -> None:
        watched = Watched(slots, slots + credits)
        for seconds, running, room, opened in notes:
            await watched.hold(seconds, running, room=room, open_episodes=opened)
            assert 1 <= watched.window.size <= slots + credits

    asyncio.run(play())
