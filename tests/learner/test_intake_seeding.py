"""Seeding inside a run: before anything is trained, through the death of actors and of the intake itself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from common import messages as m
from common import seed_rows
from common.config import SeedsConfig
from common.errors import PartFailed
from common.types import TASK_TYPES, Kind, Status, Task, TaskType
from learner.resume_point import latest_checkpoint
from tests.fakes.groups import a_task, seeded
from tests.fakes.peers import Stage, small

Setter = Callable[..., Stage]


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Setter]:
    """Sets the stage of an incarnation in the run folder, with three tasks per type to be seeded unless told."""
    made: list[Stage] = []

    def make(incarnation: int = 0, held_out: Sequence[Task] = (), folder: Path = tmp_path, **seeds: object) -> Stage:
        folder.mkdir(exist_ok=True)
        config = replace(
            small(incarnation=incarnation, eta=0),
            seeds=SeedsConfig(**{"tasks": 3, **seeds}),  # type: ignore[arg-type]
        )
        made.append(Stage(config, folder, held_out))
        if incarnation:
            made[-1].intake.resume(latest_checkpoint(folder)[0])
        return made[-1]

    yield make
    for stage in made:
        await stage.crash()


async def begin(stage: Stage, *actors: int) -> None:
    await stage.begin(*(actors or (0,)))
    await stage.poll("trainer", 0, m.WantShare(0, 0))


async def seed(stage: Stage) -> None:
    while stage.intake.seeding.active:
        leases = await stage.lease()
        assert {lease.kind for lease in leases} == {Kind.SEED}
        await stage.fulfil(leases)


def keys(stage: Stage) -> list[str]:
    return [task.key for task in stage.intake.book.seeds]


async def test_nothing_is_leased_to_train_before_there_are_seeds(stages: Setter) -> None:
    stage = stages()
    await begin(stage)
    first = await stage.lease()
    assert {(lease.kind, lease.version, lease.samples) for lease in first} == {(Kind.SEED, 0, 0)}
    waiting = await stage.poll("actor", 0, m.WantLeases(99))
    assert not waiting.done()
    await stage.fulfil(first)
    assert {lease.kind for lease in waiting.result().leases} == {Kind.SEED}
    await stage.fulfil(waiting.result().leases)
    assert stage.intake.book.sizes == dict.fromkeys(TASK_TYPES, 3)
    assert sorted(lease.kind for lease in await stage.lease()) == sorted(stage.config.algorithm.streams)


async def test_seeds_are_counted_and_never_trained_or_journaled(stages: Setter) -> None:
    stage = stages()
    await begin(stage)
    await seed(stage)
    assert stage.intake.journal.read().waiting == {}
    assert stage.intake.admission.waiting == dict.fromkeys(stage.config.algorithm.streams, 0)
    await stage.fulfil(await stage.lease())
    await stage.train(0)
    summary = await stage.close()
    asked = {t: sum(counts.values()) for t, counts in summary["seeds"].items()}
    assert {t: counts["ok"] for t, counts in summary["seeds"].items()} == dict.fromkeys(TASK_TYPES, 2)
    assert summary["leases"] == {"seeded": sum(asked.values()), "trained": 6}
    assert summary["tasks"] == dict.fromkeys(TASK_TYPES, 4)


async def test_progress_can_be_seen(stages: Setter) -> None:
    stage = stages()
    assert stage.intake.status()["seeding"] == {}
    await begin(stage)
    assert json.loads(json.dumps(stage.intake.status()))["seeding"]["deduction"] == [1, 3]
    await seed(stage)
    assert stage.intake.status()["seeding"] == {}


async def test_the_questions_of_version_0_are_asked_beside_the_seeds(stages: Setter) -> None:
    stage = stages(held_out=[a_task("held out")])
    await begin(stage)
    leases = await stage.lease()
    assert {lease.kind for lease in leases} == {Kind.EVAL, Kind.SEED}
    await stage.fulfil(leases)
    assert not stage.intake.evaluation.active and stage.intake.seeding.active


async def test_seed_leases_of_a_dead_actor_are_granted_again(stages: Setter) -> None:
    stage = stages()
    await begin(stage, 0, 1)
    lost = await stage.lease(actor=0)
    stage.leave(0)
    again = await stage.lease(actor=1)
    assert [(lease.id, lease.seed, lease.attempt) for lease in again] == [(lease.id, lease.seed, 1) for lease in lost]
    await stage.fulfil(again, actor=1)
    assert len(keys(stage)) == 4


async def test_a_repeated_seed_is_counted_once(stages: Setter) -> None:
    stage = stages()
    await begin(stage)
    leases = await stage.lease()
    await stage.fulfil([leases[0], *leases])
    assert stage.intake.book.seed_counts()[TaskType.DEDUCTION].total() == len(leases) / 2


async def test_too_few_seeds_end_the_run_and_more_tries_let_it_go_on(stages: Setter) -> None:
    stage = stages(tries=5)
    await begin(stage)
    for lease in await stage.lease():
        await stage.deliver(seeded(lease, status=Status.FORMAT))
    with pytest.raises(PartFailed, match=r"only 1 of seeds\.tasks=3 deduction tasks after 5 proposals") as failure:
        await stage.running
    assert "format 5" in failure.value.what
    assert not (await stage.poll("actor", 0, m.WantLeases(1))).done()
    await stage.crash()

    again = stages(1, tries=5)
    with pytest.raises(PartFailed, match="after 5 proposals"):
        await again.intake.run()
    await again.crash()
    more = stages(2, tries=100)
    await begin(more)
    await seed(more)
    assert more.intake.book.sizes == dict.fromkeys(TASK_TYPES, 3)


async def test_a_run_that_is_stopped_while_it_seeds_comes_to_the_same_seeds(stages: Setter, tmp_path: Path) -> None:
    first = stages(tasks=100)
    await begin(first)
    await first.fulfil(await first.lease())
    await first.fulfil((await first.lease())[:-1])
    done = keys(first)
    await first.crash()

    second = stages(1, tasks=100)
    assert keys(second) == done
    await begin(second)
    await seed(second)
    straight = stages(folder=tmp_path / "straight", tasks=100)
    await begin(straight)
    await seed(straight)
    assert len(done) < len(keys(second)) == 3 * 99
    assert keys(second) == keys(straight)


async def test_a_run_that_was_stopped_after_seeding_does_not_seed_again(stages: Setter) -> None:
    first = stages()
    await begin(first)
    await seed(first)
    leases = await first.lease()
    await first.fulfil(leases)
    await first.train(0)
    await first.crash()
    second = stages(1)
    await begin(second)
    assert not second.intake.seeding.active
    assert second.intake.book.sizes == dict.fromkeys(TASK_TYPES, 3)
    await second.train(0)
    assert second.intake.book.sizes == dict.fromkeys(TASK_TYPES, 4)


async def test_a_run_from_a_checkpoint_does_not_seed(stages: Setter) -> None:
    first = stages(tasks=0)
    await begin(first)
    await first.fulfil(await first.lease())
    await first.train(0)
    await first.save(1)
    await first.crash()
    second = stages(1, tasks=50)
    await begin(second)
    assert not second.intake.seeding.active


async def test_seeds_go_to_a_file_and_come_from_one(stages: Setter, tmp_path: Path) -> None:
    file = tmp_path / "seeds.jsonl"
    first = stages(save=str(file))
    await begin(first)
    await seed(first)
    programs = [task.program for task in first.intake.book.seeds]
    assert len(programs) == 6
    await first.crash()
    file.rename(tmp_path / "moved.jsonl")
    resumed = stages(1, save=str(file))
    await begin(resumed)
    assert file.read_text() == (tmp_path / "moved.jsonl").read_text()
    await resumed.crash()

    other = stages(folder=tmp_path / "other", tasks=0, load=str(file))
    await begin(other)
    asked = []
    while other.intake.seeding.active:
        leases = await other.lease()
        asked += [lease.task.program for lease in leases if lease.task is not None]
        assert all(lease.references == () for lease in leases)
        await other.fulfil(leases)
    assert asked == programs
    assert other.intake.book.sizes == dict.fromkeys(TASK_TYPES, 3)


async def test_what_a_file_lacks_is_proposed_through_the_death_of_the_run(stages: Setter, tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    seed_rows.write(file, [a_task(f"row {n}", task_type) for task_type in TASK_TYPES for n in range(2)])
    first = stages(tasks=5, load=str(file))
    await begin(first)
    asked = []
    for _ in range(3):  # the pairs of the file, its induction tasks, and proposals of pairs, the last of which is lost
        leases = await first.lease()
        asked.append([(bool(lease.task.inputs), bool(lease.references)) for lease in leases if lease.task is not None])
        await first.fulfil(leases[: -1 if len(asked) == 3 else None])
    assert [set(kinds) for kinds in asked] == [{(True, False)}, {(True, False)}, {(False, True)}]
    await first.crash()

    second = stages(1, tasks=5, load=str(file))
    await begin(second)
    await seed(second)
    straight = stages(folder=tmp_path / "straight", tasks=5, load=str(file))
    await begin(straight)
    await seed(straight)
    assert second.intake.book.sizes == dict.fromkeys(TASK_TYPES, 5)
    assert keys(second) == keys(straight)
