"""The intake, asked directly: what happens between a lease and the version that was trained on it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from common import messages as m
from common.config import Config
from common.errors import WireError
from common.transport import Peer
from common.types import STREAMS, TASK_TYPES, Kind, Task, TaskType
from learner.resume_point import latest_checkpoint
from tests.fakes.groups import a_task, fulfil
from tests.fakes.peers import SEEDS, Stage, small

Setter = Callable[..., Stage]
HELD_OUT = [a_task(f"held out {t}", t) for t in TASK_TYPES]


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Setter]:
    """Sets a stage in the run folder, and takes it down after the test if the test did not."""
    made: list[Stage] = []

    def make(config: Config, held_out: list[Task] | None = None) -> Stage:
        made.append(Stage(config, tmp_path, held_out or []))
        return made[-1]

    yield make
    for stage in made:
        await stage.crash()


async def running(stages: Setter, **settings: int) -> Stage:
    """One actor, and a trainer that has asked for step 0, so that version 0 is in service."""
    stage = stages(small(**settings))
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    return stage


async def test_no_lease_before_an_engine_serves_the_version_in_force(stages: Setter) -> None:
    stage = stages(small())
    await stage.begin(0)
    waiting = await stage.poll("actor", 0, m.WantLeases(3))
    assert not waiting.done()
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    assert stage.published == [0]
    assert len(waiting.result().leases) == 3


async def test_from_leases_to_the_book_of_the_next_version(stages: Setter) -> None:
    stage = await running(stages, eta=0)
    leases = await stage.lease()
    assert sorted(lease.kind for lease in leases) == sorted(stage.config.algorithm.streams)
    await stage.fulfil(leases)
    share = await stage.train(0)
    trained = sum(len(micro.answer_lengths) for micro in share.micro_batches)
    assert trained == 3 * (1 + 2) + 3 * 2
    assert stage.intake.log.last["staleness/references"] == stage.intake.log.last["staleness/tasks"] == 0.0
    assert stage.published == [0, 1]
    assert stage.intake.book.sizes == dict.fromkeys(TASK_TYPES, 2)
    assert {lease.version for lease in await stage.lease()} == {1}


async def test_the_book_grows_when_the_version_does_and_not_when_groups_come(stages: Setter) -> None:
    stage = await running(stages, eta=1)
    await stage.fulfil(await stage.lease())
    assert stage.intake.admission.batched == 2
    assert stage.intake.book.sizes == dict.fromkeys(TASK_TYPES, 1)
    proposed = m.AskNovelty(TaskType.DEDUCTION, a_task("of 0").key, "")
    assert await stage.ask("actor", 0, proposed) == m.Novelty("ok")
    assert await stage.ask("actor", 0, m.AskNovelty(TaskType.DEDUCTION, SEEDS[0].key, "")) == m.Novelty("known")
    await stage.train(0)
    assert stage.intake.book.sizes == dict.fromkeys(TASK_TYPES, 2)
    assert await stage.ask("actor", 0, proposed) == m.Novelty("known")


async def test_every_rank_gets_its_share_of_the_same_step(stages: Setter) -> None:
    stage = await running(stages, ranks=2)
    await stage.fulfil(await stage.lease())
    shares = [(await stage.share(0, rank)).share for rank in (0, 1)]
    counts = [len(share.micro_batches) for share in shares if share is not None]
    assert len(counts) == 2 and len(set(counts)) == 1
    assert sum(len(b.answer_lengths) for s in shares if s for b in s.micro_batches) == 15


async def test_a_share_says_where_its_optimiser_steps_end(stages: Setter) -> None:
    stage = await running(stages, minibatches=4)
    await stage.fulfil(await stage.lease())
    share = (await stage.share(0)).share
    assert share is not None and len(share.updates) == 4
    sizes = iter(len(batch.answer_lengths) for batch in share.micro_batches)
    assert sorted(sum(next(sizes) for _ in range(count)) for count in share.updates) == [3, 4, 4, 4]


async def test_a_repeated_delivery_is_acknowledged_and_counted_once(stages: Setter) -> None:
    stage = await running(stages)
    lease, *_ = await stage.lease(capacity=1)
    for _ in range(3):
        await stage.deliver(fulfil(lease))
    assert stage.intake.admission.counts["duplicates"] == 2
    assert sum(stage.intake.admission.waiting.values()) == 1
    assert list(stage.intake.journal.read().waiting) == [lease.id]


async def test_an_accepted_group_is_in_the_journal_and_a_failed_one_is_not(stages: Setter) -> None:
    stage = await running(stages)
    good, bad = await stage.lease(capacity=2)
    await stage.deliver(fulfil(good))
    await stage.deliver(fulfil(bad, failure="infra"))
    assert list(stage.intake.journal.read().waiting) == [good.id]
    assert stage.intake.leases.fates() == {"open": 1, "infra": 1}
    assert len(await stage.lease(capacity=1)) == 1


async def test_groups_with_log_probs_that_are_no_numbers_are_counted_and_not_trained(
    stages: Setter, tmp_path: Path
) -> None:
    stage = await running(stages)
    lost, *others = await stage.lease()
    await stage.deliver(fulfil(lost, failure="nonfinite"))
    await stage.fulfil([*others, *await stage.lease()])
    await stage.train(0)
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert row["nonfinite"] == 1 and row["groups"] == 6


async def test_a_group_of_another_incarnation_is_refused(stages: Setter) -> None:
    stage = await running(stages, incarnation=2)
    (lease,) = await stage.lease(capacity=1)
    with pytest.raises(WireError, match="incarnation 1"):
        await stage.ask("actor", 0, m.Deliver(fulfil(lease, incarnation=1)))
    assert stage.intake.admission.is_open(lease.id)


async def test_what_it_does_not_serve_is_a_wire_error(stages: Setter) -> None:
    stage = await running(stages)
    with pytest.raises(WireError, match="does not serve Welcome"):
        await stage.ask("actor", 0, m.Welcome(1, 0, 1.0))


async def test_who_waits_for_leases_gets_them_when_the_version_changes(stages: Setter) -> None:
    stage = await running(stages, eta=0)
    await stage.fulfil(await stage.lease())
    waiting = await stage.poll("actor", 0, m.WantLeases(99))
    assert not waiting.done()
    await stage.train(0)
    assert len(waiting.result().leases) == 6


async def test_who_waits_gets_what_a_dead_actor_left(stages: Setter) -> None:
    stage = await running(stages, eta=0)
    stage.join(1)
    await stage.settle()
    lost = await stage.lease(actor=0)
    waiting = await stage.poll("actor", 1, m.WantLeases(99))
    assert not waiting.done()
    stage.leave(0)
    await stage.settle()
    assert [(lease.id, lease.attempt) for lease in waiting.result().leases] == [(lease.id, 1) for lease in lost]


async def test_who_waits_gets_what_fell_silent(stages: Setter) -> None:
    stage = await running(stages, eta=0)
    stage.join(1)
    await stage.settle()
    kept, *silent = await stage.lease(actor=0)
    waiting = await stage.poll("actor", 1, m.WantLeases(99))
    for _ in range(11):
        await stage.ask("actor", 0, m.Renew((kept.id,)))
        await stage.clock.advance(1.0)
    assert [lease.id for lease in waiting.result().leases] == [lease.id for lease in silent]


async def test_leases_granted_to_a_connection_that_is_lost_come_back(stages: Setter) -> None:
    """The server cancels what a peer has under way and then says that it left, whatever the handler had done."""
    stage = await running(stages, eta=0)
    await stage.lease(actor=0, capacity=2)
    waiting = await stage.poll("actor", 0, m.WantLeases(99))
    assert waiting.done()
    never_started = stage.spawn(stage.intake.handle(Peer("actor", 0), m.WantLeases(99)))
    never_started.cancel()
    stage.leave(0)
    stage.join(0)
    await stage.settle()
    assert {lease.attempt for lease in await stage.lease(actor=0)} == {1}
    assert sum(stage.intake.admission.open.values()) == 6


async def test_a_cancelled_poll_takes_no_leases(stages: Setter) -> None:
    stage = await running(stages, eta=0)
    stage.join(1)
    await stage.settle()
    lost = await stage.lease(actor=0)
    waiting = await stage.poll("actor", 1, m.WantLeases(99))
    stage.leave(0)  # wakes the poll …
    waiting.cancel()  # … whose line is lost before it runs
    stage.leave(1)
    await stage.settle()
    assert waiting.cancelled()
    stage.join(2)
    await stage.settle()
    assert len(await stage.lease(actor=2)) == len(lost)


async def test_a_step_runs_at_most_one_ahead_of_the_version(stages: Setter) -> None:
    stage = stages(small(eta=3, steps=9))
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.fulfil(await stage.lease())
    stage.intake.weights.stop()  # the publisher goes: version 0 stays in force
    await stage.ask("trainer", 0, m.StepDone(0, {}, 0.1))
    await stage.train(1)
    waiting = await stage.poll("trainer", 0, m.WantShare(0, 2))
    assert stage.intake.admission.version == 0
    assert not waiting.done()


async def test_a_repeated_step_done_changes_nothing(stages: Setter) -> None:
    stage = await running(stages)
    await stage.fulfil(await stage.lease())
    await stage.train(0)
    assert await stage.ask("trainer", 0, m.StepDone(0, {}, 0.1)) == m.Ack()
    assert stage.intake.log.rows == 1
    assert stage.intake.leases.fates()["trained"] == 6


async def test_leases_that_cannot_meet_the_bound_are_cancelled_at_their_actors(stages: Setter) -> None:
    config = small(eta=1)
    stage = stages(replace(config, staleness=replace(config.staleness, max_staleness=0)))
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    leases = await stage.lease()
    await stage.fulfil(leases[:6])
    await stage.train(0)
    (cancelled,) = [message for _, message in stage.notices if isinstance(message, m.Cancel)]
    assert set(cancelled.leases) == {lease.id for lease in leases[6:]}
    assert stage.intake.leases.fates()["cancelled"] == 6


async def test_a_run_without_evaluation_ends_with_its_last_version_saved(stages: Setter) -> None:
    stage = await running(stages, steps=2)
    await stage.fulfil(await stage.lease())
    await stage.train(0)
    reply = await stage.share(1)
    assert reply.save
    await stage.ask("trainer", 0, m.StepDone(1, {}, 0.1))
    assert stage.published == [0, 1, 2]
    assert not stage.intake.finished.is_set()
    await stage.save(2)
    assert stage.intake.finished.is_set()
    assert (await stage.share(2)).share is None
    assert await stage.lease() == []
    await stage.running
    assert (await stage.ask("trainer", 0, m.WantPush())).stop
    summary = await stage.close()
    assert summary["leases"] == {"trained": 12}
    assert (summary["version"], summary["steps"], summary["sequences"]) == (2, 2, 30)
    assert summary["tasks"] == {t.value: 3 for t in TASK_TYPES}


async def test_the_summary_has_the_weights_of_an_engine_that_joined_behind_the_last_push(stages: Setter) -> None:
    stage = await running(stages)
    stage.join(1)
    await stage.settle()
    assert stage.published == [0, 0]
    assert (await stage.close())["checksums"] == {"version": 0, "actors": {"actor-0": "sum 0", "actor-1": "sum 0"}}


async def test_a_run_with_evaluation_is_held_before_and_after(stages: Setter, tmp_path: Path) -> None:
    stage = stages(small(steps=1, eta=0), HELD_OUT)
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    leases = await stage.lease()
    questions = [lease for lease in leases if lease.kind is Kind.EVAL]
    assert [lease.task for lease in questions] == HELD_OUT
    await stage.fulfil([lease for lease in leases if lease.kind is not Kind.EVAL])
    await stage.train(0)
    assert stage.published == [0]
    await stage.fulfil(questions)
    assert stage.published == [0, 1]
    after = await stage.lease()
    assert [lease.seed for lease in after] == [lease.seed for lease in questions]
    assert not stage.intake.finished.is_set()
    await stage.fulfil(after)
    assert stage.intake.finished.is_set()
    await stage.running
    summary = await stage.close()
    assert [r["version"] for r in summary["evaluation"]] == [0, 1]
    assert summary["leases"] == {"trained": 6, "evaluated": 6}
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row["version"] for row in rows if "eval/deduction" in row] == [0, 1]


async def test_a_repeated_answer_does_not_report_a_round_twice(stages: Setter, tmp_path: Path) -> None:
    stage = stages(small(), HELD_OUT)
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    questions = [lease for lease in await stage.lease() if lease.kind is Kind.EVAL]
    await stage.fulfil([*questions, *questions])
    rows = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(rows) == 1


async def test_an_evaluation_survives_the_death_of_its_actor(stages: Setter) -> None:
    stage = stages(small(eta=0), HELD_OUT)
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.lease(actor=0)
    stage.leave(0)
    stage.join(0)
    await stage.settle()
    assert stage.published == [0, 0]
    again = await stage.lease(actor=0)
    assert sum(lease.kind is Kind.EVAL for lease in again) == 3
    await stage.fulfil(again)
    assert not stage.intake.evaluation.active


async def test_a_failed_question_is_asked_again(stages: Setter) -> None:
    stage = stages(small(eta=0), HELD_OUT[:1])
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    (question,) = [lease for lease in await stage.lease() if lease.kind is Kind.EVAL]
    waiting = await stage.poll("actor", 0, m.WantLeases(99))
    await stage.deliver(fulfil(question, failure="infra"))
    (again,) = waiting.result().leases
    assert (again.task, again.seed) == (question.task, question.seed)
    assert again.id != question.id


async def test_the_failure_of_a_superseded_question_counts_for_nothing(stages: Setter) -> None:
    stage = stages(small(eta=0), HELD_OUT[:1])
    await stage.begin(0, 1)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    (question,) = [lease for lease in await stage.lease(actor=0) if lease.kind is Kind.EVAL]
    stage.leave(0)
    again = next(lease for lease in await stage.lease(actor=1) if lease.kind is Kind.EVAL)
    await stage.deliver(fulfil(question, failure="aborted"))
    assert stage.intake.evaluation.next_question() is None
    await stage.fulfil([again], actor=1)
    assert not stage.intake.evaluation.active


async def test_while_pushes_are_held_the_publisher_keeps_the_version_in_force(stages: Setter) -> None:
    """It holds two snapshots: the version in force and one more. A late joiner needs the former."""
    stage = stages(small(eta=2, steps=5), HELD_OUT)
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    leases = await stage.lease()
    await stage.fulfil([lease for lease in leases if lease.kind is not Kind.EVAL])
    await stage.train(0)
    waiting = await stage.poll("trainer", 0, m.WantShare(0, 1))
    assert not waiting.done()
    stage.join(1)
    await stage.settle()
    assert stage.published == [0, 0]
    assert stage.intake.weights.in_service(1)
    await stage.fulfil([lease for lease in leases if lease.kind is Kind.EVAL])
    assert waiting.result().share.step == 1


async def test_a_checkpoint_is_found_before_the_journal_lets_go(stages: Setter, tmp_path: Path) -> None:
    stage = await running(stages, eta=1, steps=9, save_every=1)
    await stage.fulfil(await stage.lease())
    await stage.train(0)
    assert latest_checkpoint(tmp_path) == (1, tmp_path / "checkpoints" / "step-000001")
    assert list(stage.intake.journal.read().batches) == [1]


async def test_nothing_grows_with_the_length_of_a_run(stages: Setter) -> None:
    stage = await running(stages, eta=1, steps=40, save_every=5)
    for step in range(30):
        await stage.fulfil(await stage.lease())
        await stage.train(step)
    intake = stage.intake
    assert len(intake._batches) + len(intake._shares) <= 4
    assert len(intake.admission._open) + len(intake.admission._again) <= 12
    assert len(intake.journal.read().batches) <= 7
    assert not intake._notices


async def test_status_can_be_shown_at_any_time(stages: Setter) -> None:
    stage = stages(small(), HELD_OUT)
    assert json.loads(json.dumps(stage.intake.status()))["version"] is None
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    await stage.ask("actor", 0, m.Report("actor-0", {"generate": 3.0, "idle": 1.0}, (), "idle"))
    status = stage.intake.status()
    assert (status["evaluating"], status["states"]) == (True, {"actor-0": "idle"})
    assert status["shares"] == {"actor-0": {"generate": 0.75, "idle": 0.25}}


async def test_reached_returns_when_the_version_is_in_service(stages: Setter) -> None:
    stage = await running(stages)
    waiting = asyncio.create_task(stage.intake.reached(1))
    await stage.settle()
    assert not waiting.done()
    await stage.fulfil(await stage.lease())
    await stage.train(0)
    await waiting


async def test_error_deduction_has_its_part_of_every_batch(stages: Setter) -> None:
    config = small(eta=0)
    stage = stages(replace(config, algorithm=replace(config.algorithm, error=True)))
    stage.intake.book.add(0, [(None, a_task("seed", TaskType.ERROR), None)])
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    leases = await stage.lease()
    assert sorted(lease.kind for lease in leases) == sorted(STREAMS)
    await stage.fulfil(leases)
    share = await stage.train(0)
    assert sum(len(micro.answer_lengths) for micro in share.micro_batches) == 4 * (1 + 2) + 4 * 2
    assert stage.intake.book.sizes == dict.fromkeys(TaskType, 2)
