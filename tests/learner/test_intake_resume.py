"""After a crash at any moment the run goes on from its checkpoint as if nothing had been trained since."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest

from common import messages as m
from common.types import TASK_TYPES, Kind, Lease, MicroBatch, Share, TaskType
from learner import trace
from learner.resume_point import latest_checkpoint, record_checkpoint
from tests.fakes.groups import a_task, fulfil
from tests.fakes.peers import Stage, small

Setter = Callable[..., Stage]
GROUPS = 6  # in a batch


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Setter]:
    """Sets the stage of an incarnation in the run folder; from 1 on, resumed from the newest checkpoint."""
    made: list[Stage] = []

    def make(incarnation: int = 0, *, eta: int = 2, steps: int = 6, save_every: int = 2) -> Stage:
        config = small(eta=eta, steps=steps, save_every=save_every, incarnation=incarnation)
        made.append(Stage(config, tmp_path))
        if incarnation:
            made[-1].intake.resume(latest_checkpoint(tmp_path)[0])
        return made[-1]

    yield make
    for stage in made:
        await stage.crash()


async def begin(stage: Stage, step: int = 0) -> None:
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, step))


async def to_checkpoint(stage: Stage) -> list[Lease]:
    """Two steps trained, pushed and saved; two more batches formed, four groups waiting. Returns two open leases."""
    await begin(stage)
    for step in range(2):
        await stage.fulfil(await stage.lease())
        await stage.train(step)
    *answered, last, other = await stage.lease()
    await stage.fulfil(answered)
    assert (stage.intake.admission.version, stage.intake.admission.batched, len(answered)) == (2, 4, 4)
    return [last, other]


def equal(one: Share, other: Share) -> bool:
    return one.step == other.step and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one.micro_batches, other.micro_batches, strict=True)
        for name in MicroBatch.__dataclass_fields__
    )


async def finish(stage: Stage, first: int) -> dict[str, int]:
    """Train to the end; the fates of all leases of the run."""
    stage.spawn(stage.act(0))
    await stage.settle()
    for step in range(first, stage.config.learner.steps):
        await stage.train(step)
    await stage.running
    fates: dict[str, int] = (await stage.close())["leases"]
    return fates


async def test_journaled_batches_are_trained_again_in_the_same_order(stages: Setter) -> None:
    first = stages()
    await to_checkpoint(first)
    lost = [await first.train(2), (await first.share(3)).share]
    await first.crash()

    second = stages(1)
    await begin(second, 2)
    assert second.published == [2]
    assert second.intake.admission.batched == 4
    assert len(second.intake.admission.waiting_groups()) == 4
    again = [await second.train(2), await second.train(3)]
    assert all(one and equal(one, other) for one, other in zip(lost, again, strict=True))


async def test_each_lease_of_the_run_ends_once(stages: Setter) -> None:
    first = stages()
    opened = await to_checkpoint(first)
    await first.train(2)
    await first.crash()

    second = stages(1)
    assert second.intake.leases.fates()["unused"] == len(opened)
    await begin(second, 2)
    fates = await finish(second, 2)
    assert fates["trained"] == 6 * GROUPS
    assert "open" not in fates


async def test_new_leases_take_new_numbers(stages: Setter) -> None:
    first = stages()
    opened = await to_checkpoint(first)
    await first.crash()
    second = stages(1)
    await begin(second, 2)
    newest = {lease.kind: lease.id for lease in opened}
    for lease in await second.lease():
        assert lease.id > newest.get(lease.kind, -1)


async def test_waiting_groups_of_lost_weights_end_and_others_are_trained(stages: Setter) -> None:
    first = stages(eta=2)
    await begin(first)
    for step in range(2):
        await first.fulfil((await first.lease())[:GROUPS])
        await first.train(step)
    kept, lost, *_ = await first.lease()
    await first.deliver(fulfil(kept))
    await first.deliver(fulfil(lost, version=3))
    await first.crash()

    second = stages(1)
    fates = second.intake.leases.fates()
    assert fates["lost_weights"] == 1
    assert [group.lease for group in second.intake.admission.waiting_groups()] == [kept.id]
    await begin(second, 2)
    assert "open" not in await finish(second, 2)


async def test_the_book_has_every_batch_of_the_checkpoint_even_if_its_version_was_never_pushed(stages: Setter) -> None:
    first = stages(save_every=1)
    await begin(first)
    await first.fulfil(await first.lease())
    first.intake.weights.stop()  # no further push: version 1 never comes into service
    await first.train(0)
    assert first.intake.book.sizes == dict.fromkeys(TASK_TYPES, 1)
    await first.crash()

    second = stages(1)
    assert second.intake.book.sizes == dict.fromkeys(TASK_TYPES, 2)
    assert second.intake.book.status(TaskType.DEDUCTION, a_task("of 0").key, "") == "known"
    await second.crash()
    third = stages(2)
    assert third.intake.book.sizes == dict.fromkeys(TASK_TYPES, 2)


async def test_the_book_forgets_what_came_after_the_checkpoint(stages: Setter) -> None:
    first = stages()
    await to_checkpoint(first)
    at_checkpoint = dict.fromkeys(TASK_TYPES, 3)
    assert first.intake.book.sizes == at_checkpoint
    await first.train(2)
    assert first.intake.book.sizes != at_checkpoint
    await first.crash()
    assert stages(1).intake.book.sizes == at_checkpoint


async def test_a_crash_before_the_journal_was_compacted_changes_nothing(stages: Setter, tmp_path: Path) -> None:
    first = stages(save_every=0)
    await begin(first)
    for step in range(2):
        await first.fulfil(await first.lease())
        await first.train(step)
    uncompacted = tmp_path / "uncompacted"
    shutil.copytree(tmp_path / "journal", uncompacted)
    await first.save(2)
    await first.crash()
    shutil.rmtree(tmp_path / "journal")
    uncompacted.rename(tmp_path / "journal")

    second = stages(1)
    assert second.intake.book.sizes == dict.fromkeys(TASK_TYPES, 3)
    await begin(second, 2)
    fates = await finish(second, 2)
    assert fates["trained"] == 6 * GROUPS
    assert "open" not in fates


async def test_crash_upon_crash(stages: Setter) -> None:
    """No incarnation after the first gets as far as a checkpoint."""
    stage = stages(steps=6)
    await to_checkpoint(stage)
    shares: list[Share] = []
    for incarnation in (1, 2, 3):
        shares.append(await stage.train(2))
        await stage.crash()
        stage = stages(incarnation)
        await begin(stage, 2)
        stage.spawn(stage.act(0))
        await stage.settle()
    assert all(equal(shares[0], share) for share in shares)
    fates = await finish(stage, 2)
    assert fates["trained"] == 6 * GROUPS
    assert "open" not in fates


async def test_restored_groups_that_fill_a_batch_are_trained_without_another_delivery(stages: Setter) -> None:
    first = stages(eta=0, steps=4, save_every=1)
    await begin(first)
    await first.fulfil(await first.lease())
    await first.train(0)
    *early, last = await first.lease()
    await first.fulfil(early)
    first.intake.journal.append(fulfil(last))  # the crash comes before the batch is formed
    await first.crash()

    second = stages(1, eta=0, steps=4, save_every=1)
    await begin(second, 1)
    assert second.intake.admission.batched == 2
    assert "open" not in await finish(second, 1)


async def test_files_for_people_go_on_where_they_were(stages: Setter, tmp_path: Path) -> None:
    report = m.Report("trainer-0", {"train": 1.0}, (("train", 10.0, 11.0),), "train")
    other = m.Report("actor-0", {"idle": 1.0}, (("idle", 10.0, 11.0),), "idle")
    first = stages()
    await to_checkpoint(first)
    await first.ask("trainer", 0, report)
    await first.close()
    second = stages(1)
    await begin(second, 2)
    await second.ask("actor", 0, other)
    await second.ask("trainer", 0, report)
    await second.close()
    events = trace.read(tmp_path / "trace.json")
    names = {event["pid"]: event["args"]["name"] for event in events if event["ph"] == "M"}
    assert sorted(names.values()) == ["actor-0", "intake", "trainer-0"]
    assert [names[e["pid"]] for e in events if e["ph"] == "X"] == ["trainer-0", "actor-0", "trainer-0"]
    steps = [json.loads(line)["step"] for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1]


async def test_before_its_first_checkpoint_a_run_goes_on_from_the_base_model(stages: Setter, tmp_path: Path) -> None:
    first = stages()
    await begin(first)
    await first.fulfil((await first.lease())[: GROUPS + 2])
    lost = await first.train(0)
    await first.crash()

    assert latest_checkpoint(tmp_path) == (0, None)
    second = stages(1)
    await begin(second)
    assert (second.published, second.intake.admission.batched) == ([0], 1)
    assert equal(await second.train(0), lost)
    fates = await finish(second, 1)
    assert fates["trained"] == 6 * GROUPS
    assert "open" not in fates


async def same_program_twice(stage: Stage) -> list[str]:
    """Two batches under way at once, whose deduction proposals are of one program; what became of these."""
    await begin(stage)
    leases = await stage.lease()
    assert len(leases) >= 2 * GROUPS
    for lease in leases[: 2 * GROUPS]:
        group = fulfil(lease)
        if lease.kind is Kind.PROPOSE_DEDUCTION:
            group = dataclasses.replace(group, proposal=a_task(f"of {lease.id}", program="the same"))
        await stage.deliver(group)
    return statuses(stage)


def statuses(stage: Stage) -> list[str]:
    batches = stage.intake._batches
    return [g.samples[0].status for n in sorted(batches) for g in batches[n] if g.kind is Kind.PROPOSE_DEDUCTION]


async def test_a_program_of_two_batches_under_way_is_kept_once_also_when_they_are_replayed(stages: Setter) -> None:
    first = stages()
    assert await same_program_twice(first) == ["ok", "known"]
    shares = [(await first.share(0)).share]
    await first.train(0)
    shares.append((await first.share(1)).share)
    await first.crash()

    second = stages(1)
    assert statuses(second) == ["ok", "known"]
    await begin(second)
    again = [await second.train(0), await second.train(1)]
    assert all(one and equal(one, other) for one, other in zip(shares, again, strict=True))
    assert second.intake.book.sizes == {TaskType.DEDUCTION: 2, TaskType.ABDUCTION: 3, TaskType.INDUCTION: 3}


async def test_a_book_that_is_rebuilt_from_the_journal_is_settled(stages: Setter, tmp_path: Path) -> None:
    first = stages()
    await same_program_twice(first)
    first.intake.weights.stop()  # no further push: versions 1 and 2 never come into service
    for step in (0, 1):
        await first.share(step)
        await first.ask("trainer", 0, m.StepDone(step, {}, 0.1))
    record_checkpoint(tmp_path, 2, "checkpoints/step-000002")  # the crash comes before the journal is compacted
    await first.crash()
    second = stages(1)
    assert second.intake.book.sizes == {TaskType.DEDUCTION: 2, TaskType.ABDUCTION: 3, TaskType.INDUCTION: 3}
