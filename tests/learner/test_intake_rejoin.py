"""The intake dies alone: trainer ranks and engines go on, and it goes on with them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from common import messages as m
from common.config import EvalConfig
from tests.fakes.groups import a_task, fulfil
from tests.fakes.peers import Stage, small

GROUPS = 6  # in a batch


async def begun(folder: Path) -> Stage:
    stage = Stage(small(eta=2, steps=4), folder)
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    return stage


async def back(folder: Path, life: int = 1) -> Stage:
    """Without a new incarnation."""
    stage = Stage(small(eta=2, steps=4), folder)
    stage.intake.rejoin(life)
    await stage.begin(0)
    return stage


async def test_it_goes_on_at_the_step_of_the_ranks_and_loses_no_acknowledged_group(tmp_path: Path) -> None:
    first = await begun(tmp_path)
    leases = await first.lease()
    await first.fulfil(leases[: 2 * GROUPS + 3])
    await first.train(0)
    assert (await first.share(1)).share is not None
    await first.crash()

    second = await back(tmp_path)
    assert second.published == [1]
    assert (second.intake._step, second.intake.admission.version, second.intake.admission.batched) == (1, 1, 2)
    assert len(second.intake.admission.waiting_groups()) == 3
    assert second.intake.leases.fates() == {
        "trained": GROUPS,
        "open": GROUPS + 3,
        "unused": len(leases) - 2 * GROUPS - 3,
    }
    assert await second.ask("trainer", 0, m.StepDone(0, {}, 0.1)) == m.Ack()
    assert await second.ask("trainer", 0, m.StepDone(1, {}, 0.1)) == m.Ack()
    second.spawn(second.act(0))
    await second.settle()
    for step in (2, 3):
        await second.train(step)
    await second.running
    fates = (await second.close())["leases"]
    assert fates["trained"] == 4 * GROUPS
    assert "open" not in fates


async def test_a_group_that_was_journaled_and_not_acknowledged_is_taken_once(tmp_path: Path) -> None:
    first = await begun(tmp_path)
    lease, *_ = await first.lease()
    first.intake.journal.append(fulfil(lease))
    await first.crash()
    second = await back(tmp_path)
    await second.deliver(fulfil(lease))
    assert [group.lease for group in second.intake.admission.waiting_groups()] == [lease.id]
    assert second.intake.admission.counts["duplicates"] == 1
    await second.crash()


async def test_who_renews_a_lease_that_was_lost_is_told_to_cancel_it(tmp_path: Path) -> None:
    first = await begun(tmp_path)
    lost, *_ = await first.lease()
    await first.crash()
    second = await back(tmp_path)
    held, *_ = await second.lease()
    await second.ask("actor", 0, m.Renew((lost.id, held.id)))
    assert [notice for _, notice in second.notices if isinstance(notice, m.Cancel)] == [m.Cancel((lost.id,))]
    await second.crash()


async def test_the_version_in_service_goes_out_again_before_a_newer_one_in_another_epoch(tmp_path: Path) -> None:
    first = await begun(tmp_path)
    await first.fulfil((await first.lease())[:GROUPS])
    first.intake.weights.stop()  # version 1 never comes into service
    await first.train(0)
    epochs = {notice.epoch for _, notice in first.notices if isinstance(notice, m.Stage)}
    await first.crash()
    second = await back(tmp_path)
    assert second.published == [0, 1]
    assert epochs.isdisjoint(notice.epoch for _, notice in second.notices if isinstance(notice, m.Stage))
    await second.crash()


async def test_before_a_version_was_in_service_it_waits_until_the_learner_has_one(tmp_path: Path) -> None:
    first = Stage(small(eta=2, steps=4), tmp_path)
    await first.begin(0)
    await first.crash()
    second = await back(tmp_path)
    assert second.published == []
    await second.poll("trainer", 0, m.WantShare(0, 0))
    assert second.published == [0]
    await second.crash()


async def test_neither_has_a_run_that_was_resumed_one_at_once(tmp_path: Path) -> None:
    first = Stage(small(eta=0, steps=4, save_every=1), tmp_path)
    await first.begin(0)
    await first.poll("trainer", 0, m.WantShare(0, 0))
    await first.fulfil(await first.lease())
    await first.train(0)
    await first.crash()
    resumed = small(eta=0, steps=4, save_every=1, incarnation=1)
    second = Stage(resumed, tmp_path)
    second.intake.resume(1)
    await second.begin(0)
    await second.crash()
    third = Stage(resumed, tmp_path)
    third.intake.rejoin(1)
    await third.begin(0)
    assert (third.published, third.intake.admission.version) == ([], 1)
    await third.poll("trainer", 0, m.WantShare(0, 1))
    assert third.published == [1]
    await third.crash()


async def test_a_round_of_evaluation_that_is_over_is_not_asked_again(tmp_path: Path) -> None:
    config = dataclasses.replace(small(eta=2, steps=4), eval=EvalConfig(every=2))
    asked = [a_task(f"asked {n}") for n in range(3)]
    first = Stage(config, tmp_path, asked)
    await first.begin(0)
    first.spawn(first.act(0))
    await first.poll("trainer", 0, m.WantShare(0, 0))
    assert [found.version for found in first.intake.evaluation.rounds] == [0]
    await first.crash()
    second = Stage(config, tmp_path, asked)
    second.intake.rejoin(1)
    await second.begin(0)
    assert second.published == [0] and not second.intake.evaluation.active
    second.spawn(second.act(0))
    for step in range(2):
        await second.train(step)
    await second.settle()
    assert [found.version for found in second.intake.evaluation.rounds] == [2]
    await second.crash()


async def test_a_round_that_was_open_is_asked_anew(tmp_path: Path) -> None:
    config, asked = small(eta=2, steps=4), [a_task("asked")]
    first = Stage(config, tmp_path, asked)
    await first.begin(0)
    await first.poll("trainer", 0, m.WantShare(0, 0))
    assert first.intake.evaluation.active
    await first.crash()
    second = Stage(config, tmp_path, asked)
    second.intake.rejoin(1)
    await second.begin(0)
    assert second.intake.evaluation.active
    await second.crash()


async def test_it_is_never_behind_the_version_in_service(tmp_path: Path) -> None:
    first = await begun(tmp_path)
    await first.fulfil((await first.lease())[:GROUPS])
    await first.crash()
    first = await back(tmp_path)
    first.intake.leases.serve(1)  # what was trained did not reach the disk
    await first.crash()
    second = await back(tmp_path, life=2)
    assert (second.intake._step, second.intake.admission.version) == (1, 1)
    await second.crash()
