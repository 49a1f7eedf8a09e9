"""A run without a learner: actors are served at once, groups are acknowledged and discarded."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from common import messages as m
from common.config import Config
from common.types import TASK_TYPES, Kind
from learner.rollout_only import RolloutOnly
from tests.fakes.groups import fulfil
from tests.fakes.peers import Stage, small


def alone(**settings: Any) -> Config:
    config = small(**settings)
    return replace(config, learner=replace(config.learner, kind="none"))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    """Two steps of 6 groups, three sequences of a proposal or two answers each, and one actor."""
    made = Stage(alone(steps=2, eta=0), tmp_path, kind=RolloutOnly)
    await made.begin(0, publishing=False)
    yield made
    await made.crash()


async def test_an_engine_serves_the_base_model_from_the_moment_it_joins(stage: Stage) -> None:
    leases = await stage.lease()
    assert {lease.version for lease in leases} == {0}
    assert not stage.notices and stage.published == []
    stage.leave(0)
    stage.join(1)
    assert [lease.attempt for lease in await stage.lease(actor=1, capacity=len(leases))] == [1] * len(leases)


async def test_leases_do_not_run_dry_before_the_end(stage: Stage) -> None:
    """η is unbounded, whatever the configuration says, and what is beyond the last batch is granted, too."""
    leases = await stage.lease()
    assert len(leases) == 8 * 6
    await stage.fulfil(leases[:6])
    assert len(await stage.lease()) == 6


async def test_exact_staleness_ends_with_the_learner(tmp_path: Path) -> None:
    """Version 0 samples every batch, also those that another version would have to sample."""
    config = alone(steps=4, eta=1)
    stage = Stage(replace(config, staleness=replace(config.staleness, mode="exact")), tmp_path, kind=RolloutOnly)
    await stage.begin(0, publishing=False)
    await stage.fulfil(await stage.lease(capacity=24))
    assert stage.intake.finished.is_set() and stage.intake.leases.fates()["discarded"] == 24
    await stage.close()


async def test_the_run_ends_with_its_last_batch_and_tells_its_rates(stage: Stage, tmp_path: Path) -> None:
    await stage.clock.advance(100.0)  # before the first lease: of no interest
    leases = await stage.lease(capacity=30)
    first, second = leases[:6], leases[6:12]
    assert [sorted(lease.kind for lease in of) for of in (first, second)] == [
        sorted(stage.config.algorithm.streams)
    ] * 2
    await stage.clock.advance(4.0)
    await stage.fulfil(first)
    waiting = await stage.poll("actor", 0, m.WantLeases(99))
    assert not stage.intake.finished.is_set()
    await stage.clock.advance(6.0)
    await stage.fulfil(second)
    await stage.running  # ends by itself
    assert waiting.done() and await stage.lease() == []
    await stage.fulfil(leases[12:18])  # one batch more comes too late
    summary = await stage.close()
    groups = [fulfil(lease) for lease in (*first, *second)]
    sequences, tokens = sum(len(g.samples) for g in groups), sum(len(s.tokens) for g in groups for s in g.samples)
    assert (sequences, summary["steps"], summary["sequences"], summary["version"]) == (30, 2, 30, 0)
    assert summary["rollout"] == {
        "seconds": 10.0,
        "groups": 12,
        "sequences": 30,
        "tokens": tokens,
        "groups_per_second": 1.2,
        "sequences_per_second": 3.0,
        "tokens_per_second": tokens / 10.0,
    }
    assert (
        summary["leases"]["discarded"] == 12 and "trained" not in summary["leases"] and "open" not in summary["leases"]
    )
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["seconds"], row["sequences"], row["staleness/max"]) for row in rows] == [
        (0, 4.0, 15, 0),
        (1, 6.0, 15, 0),
    ]


async def test_nothing_is_kept(stage: Stage) -> None:
    await stage.fulfil((await stage.lease())[:9])
    contents = stage.intake.journal.read()
    assert not contents.batches and not contents.waiting
    assert stage.intake.book.sizes == dict.fromkeys(TASK_TYPES, 1)
    assert stage.intake.leases.fates()["discarded"] == 6


async def test_what_was_sampled_is_kept_on_request(tmp_path: Path) -> None:
    """In the order in which it came."""
    config = alone(steps=3)
    stage = Stage(replace(config, logging=replace(config.logging, keep_discarded=True)), tmp_path, kind=RolloutOnly)
    await stage.begin(0, publishing=False)
    leases = (await stage.lease())[:9]
    await stage.fulfil(leases)
    contents = stage.intake.journal.read()
    assert list(contents.waiting) == [lease.id for lease in leases] and not contents.batches
    await stage.close()


async def test_a_repeated_delivery_counts_once_and_a_failed_group_not_at_all(stage: Stage) -> None:
    first, second, *rest = await stage.lease(capacity=7)
    for group in (fulfil(first), fulfil(first), fulfil(second, failure="infra")):
        await stage.deliver(group)
    await stage.fulfil(rest)
    fates = stage.intake.leases.fates()
    assert fates.get("discarded", 0) + sum(stage.intake.admission.waiting.values()) == 6
    assert fates["infra"] == 1


async def test_the_summary_tells_what_rejected_proposals(stage: Stage) -> None:
    first, *rest = await stage.lease(capacity=6)
    assert first.kind.proposes
    group = fulfil(first)
    failed = replace(group, samples=(replace(group.samples[0], status="format"),), proposal=None, solve_rate=None)
    await stage.deliver(failed)
    await stage.fulfil(rest)
    assert (await stage.close())["rejected"] == {"format": 1}


async def test_seeds_come_first_and_are_in_no_rate(tmp_path: Path) -> None:
    config = alone(steps=1)
    stage = Stage(replace(config, seeds=replace(config.seeds, tasks=2)), tmp_path, kind=RolloutOnly)
    await stage.begin(0, publishing=False)
    while (leases := await stage.lease()) and leases[0].kind is Kind.SEED:
        await stage.clock.advance(50.0)
        await stage.fulfil(leases)
    await stage.clock.advance(2.0)
    await stage.fulfil(leases)
    assert (await stage.close())["rollout"]["seconds"] == 2.0


async def test_a_run_that_was_cut_short_has_the_rates_so_far(stage: Stage) -> None:
    assert "rollout" not in await Stage.close(stage)
