"""The intake dies alone: trainer ranks and engines go on, and it goes on with them."""

from __future__ import annotations

from pathlib import Path

from common import messages as m
from tests.fakes.groups import fulfil
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
