"""Pools: what is drawn how often, and that a limited pool is a fair sample."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import AlgorithmConfig
from learner.pools import Pool, references
from tests.fakes.groups import a_task

DRAWS = 4000


def pool(versions: list[int], limit: int = 0, seed: int = 0) -> Pool:
    """A task per version given, named by its place."""
    made = Pool(limit, seed)
    for place, version in enumerate(versions):
        made.add(version, a_task(f"{place}"))
    return made


def places(made: Pool) -> list[int]:
    return [entry.order for entry in made.entries]


def shares(made: Pool, config: AlgorithmConfig, version: int) -> dict[int, float]:
    """How often each place is drawn."""
    counts = Counter(made.task(random.Random(i), config, version).key.partition(":")[2] for i in range(DRAWS))
    return {int(place): count / DRAWS for place, count in counts.items()}


def near(share: float) -> object:
    return pytest.approx(share, abs=0.035)  # over four standard deviations of a share of DRAWS


def test_uniform_draws_each_alike() -> None:
    assert shares(pool([0, 1, 1, 2]), AlgorithmConfig(), 2) == dict.fromkeys(range(4), near(0.25))


def test_recency_draws_by_version_plus_one() -> None:
    config = AlgorithmConfig(task_sampling="recency")
    assert shares(pool([0, 1, 4]), config, 4) == {0: near(1 / 8), 1: near(2 / 8), 2: near(5 / 8)}


def test_max_new_fills_a_batch_as_far_as_there_are_new_tasks() -> None:
    """Two new tasks, batches of 8: 2 of 8 draws are of the new ones alone, 6 of 8 of all four."""
    config = AlgorithmConfig(task_sampling="max_new", solves=8)
    old, new = 6 / 8 / 4, 2 / 8 / 2 + 6 / 8 / 4
    assert shares(pool([0, 1, 2, 2]), config, 2) == {0: near(old), 1: near(old), 2: near(new), 3: near(new)}


def test_max_new_draws_nothing_else_where_new_tasks_fill_the_batch() -> None:
    config = AlgorithmConfig(task_sampling="max_new", solves=2)
    assert set(shares(pool([0, 1, 2, 2]), config, 2)) == {2, 3}


def test_a_window_reaches_back_so_many_versions() -> None:
    config = AlgorithmConfig(task_sampling="max_new", solves=1, window=2)
    assert set(shares(pool([0, 1, 2, 3]), config, 3)) == {2, 3}
    assert set(shares(pool([0, 1, 2, 3]), config, 4)) == {3}


def test_without_new_tasks_all_are_drawn() -> None:
    for sampling in ("max_new", "half_new"):
        config = AlgorithmConfig(task_sampling=sampling, solves=1)
        assert shares(pool([0, 1]), config, 5) == dict.fromkeys(range(2), near(0.5))


def test_half_new_is_one_half_new_and_one_half_all() -> None:
    config = AlgorithmConfig(task_sampling="half_new")
    assert shares(pool([0, 0, 0, 1]), config, 1) == {**dict.fromkeys(range(3), near(1 / 8)), 3: near(5 / 8)}


def test_references_by_recency_are_distinct_and_prefer_the_new() -> None:
    """Without replacement from weights 1 and 3: the second comes first in 3 of 4 draws."""
    entries = pool([0, 2]).entries
    first = Counter(references(random.Random(i), entries, 2, "recency")[0].key for i in range(DRAWS))
    assert first["deduction:1"] / DRAWS == near(0.75)
    assert {len(set(references(random.Random(i), entries, 5, "recency"))) for i in range(20)} == {2}


@given(st.lists(st.integers(0, 9), max_size=40).map(sorted), st.integers(1, 10), st.integers(0, 3))
def test_a_limited_pool_keeps_its_order_and_its_limit(versions: list[int], limit: int, seed: int) -> None:
    made = pool(versions, limit, seed)
    assert len(made.entries) == min(limit, len(versions))
    assert places(made) == sorted(places(made))
    assert [entry.version for entry in made.entries] == [versions[place] for place in places(made)]


@given(st.integers(0, 60), st.integers(1, 10))
def test_what_is_kept_of_more_was_kept_of_less_or_is_new(count: int, limit: int) -> None:
    before, after = pool([0] * count, limit), pool([0] * (count + 1), limit)
    assert set(places(after)) <= set(places(before)) | {count}


def test_every_task_has_the_same_chance_to_stay() -> None:
    kept = Counter(place for seed in range(2000) for place in places(pool([0] * 12, 3, seed)))
    assert {place: count / 2000 for place, count in kept.items()} == dict.fromkeys(
        range(12), pytest.approx(0.25, abs=0.045)
    )
