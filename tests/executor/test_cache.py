"""The memory of answers: what it forgets, and that equal questions are asked once at a time."""

from __future__ import annotations

import asyncio

import pytest

from executor.cache import Cache, collect


def learn(cache: Cache[str, int], key: str, value: int, *, keep: bool = True) -> None:
    assert cache.claim([key])[1] == [key]
    cache.settle(key, value, keep=keep)


async def knows(cache: Cache[str, int], key: str) -> bool:
    (found,), fresh = cache.claim([key])
    for asked in fresh:
        cache.fail(LookupError(asked), [asked])
    return not isinstance(found, asyncio.Future)


async def test_what_was_used_least_recently_is_forgotten() -> None:
    cache: Cache[str, int] = Cache(2)
    learn(cache, "a", 1)
    learn(cache, "b", 2)
    assert cache.claim(["a"]) == ([1], [])
    learn(cache, "c", 3)
    assert [await knows(cache, key) for key in "abc"] == [True, False, True]
    assert len(cache) == 2


async def test_nothing_is_kept_unless_asked_for_and_allowed() -> None:
    for cache, keep in ((Cache[str, int](2), False), (Cache[str, int](0), True)):
        learn(cache, "a", 1, keep=keep)
        assert not await knows(cache, "a") and len(cache) == 0


async def test_equal_questions_are_asked_once_and_all_are_told() -> None:
    cache: Cache[str, int] = Cache(2)
    first, fresh = cache.claim(["a", "b", "a"])
    second, again = cache.claim(["b"])
    assert (fresh, again) == (["a", "b"], [])
    leaving = asyncio.create_task(collect(second))
    waiting = [asyncio.create_task(collect(found)) for found in (first, second)]
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    cache.settle("a", 1, keep=True)
    cache.settle("b", 2, keep=False)
    assert await asyncio.gather(*waiting) == [[1, 2, 1], [2]]
    assert leaving.cancelled()


async def test_a_failure_is_told_and_the_question_may_be_asked_again() -> None:
    cache: Cache[str, int] = Cache(2)
    found, fresh = cache.claim(["a"])
    cache.fail(LookupError("nobody knows"), [*fresh, "never asked"])
    with pytest.raises(LookupError, match="nobody knows"):
        await collect(found)
    assert cache.claim(["a"])[1] == ["a"]
