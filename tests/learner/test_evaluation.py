"""Evaluation rounds: which versions, what is counted, and what a failure costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import EvalConfig
from common.errors import ConfigError
from common.types import Group, Kind, Task, TaskType
from learner.evaluation import ATTEMPTS, Accuracy, Evaluation, held_out
from learner.leases import lease_id
from learner.task_book import task_to_json
from tests.fakes.groups import a_group, a_sample, a_task

TASKS = [a_task("one"), a_task("two"), a_task("three", TaskType.ABDUCTION)]


def evaluation(tasks: list[Task] = TASKS, every: int = 0, last: int = 10) -> Evaluation:
    return Evaluation(tasks, EvalConfig(every=every), last)


def answer(lease: int, correct: bool) -> Group:
    return a_group(lease, Kind.EVAL, [a_sample(Kind.SOLVE_DEDUCTION, correct=correct, trainable=False)])


def failed(lease: int) -> Group:
    return a_group(lease, Kind.EVAL, failure="infra")


def grant(rounds: Evaluation, number: int) -> int:
    lease = lease_id(Kind.EVAL, number)
    assert rounds.next_task() is not None
    rounds.granted(lease)
    return lease


def test_before_after_and_every_so_often() -> None:
    assert [v for v in range(11) if evaluation().due(v)] == [0, 10]
    assert [v for v in range(11) if evaluation(every=4).due(v)] == [0, 4, 8, 10]
    assert not evaluation([]).due(0)


def test_a_round_counts_right_answers_by_type() -> None:
    rounds = evaluation()
    rounds.begin(0)
    leases = [grant(rounds, i) for i in range(3)]
    assert rounds.next_task() is None
    assert rounds.deliver(answer(leases[2], True)) is None
    assert rounds.deliver(answer(leases[0], True)) is None
    assert rounds.active
    result = rounds.deliver(answer(leases[1], False))
    expected = Accuracy(0, {TaskType.DEDUCTION: 1, TaskType.ABDUCTION: 1, TaskType.INDUCTION: 0},
                        {TaskType.DEDUCTION: 2, TaskType.ABDUCTION: 1, TaskType.INDUCTION: 0})  # fmt: skip
    assert result == expected
    assert [result.of(t) for t in (TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.INDUCTION)] == [0.5, 1.0, 0.0]
    assert not rounds.active


def test_a_round_is_held_once() -> None:
    rounds = evaluation([a_task("one")])
    rounds.begin(0)
    assert not rounds.due(0)
    lease = grant(rounds, 0)
    assert rounds.deliver(answer(lease, True)) is not None
    assert not rounds.due(0)
    assert rounds.deliver(answer(lease, True)) is None
    assert len(rounds.rounds) == 1


def test_rounds_do_not_share_counts() -> None:
    rounds = evaluation([a_task("one")])
    for number, version in enumerate((0, 10)):
        rounds.begin(version)
        rounds.deliver(answer(grant(rounds, number), version == 0))
    assert [(r.version, r.of(TaskType.DEDUCTION)) for r in rounds.rounds] == [(0, 1.0), (10, 0.0)]


def test_a_failed_group_puts_its_task_back() -> None:
    rounds = evaluation([a_task("one")])
    rounds.begin(0)
    assert rounds.deliver(failed(grant(rounds, 0))) is None
    assert rounds.active
    result = rounds.deliver(answer(grant(rounds, 1), True))
    assert result is not None and result.of(TaskType.DEDUCTION) == 1.0


def test_a_task_that_always_fails_counts_as_not_solved() -> None:
    rounds = evaluation([a_task("one"), a_task("two")])
    rounds.begin(0)
    results = [rounds.deliver(failed(grant(rounds, number))) for number in range(2 * ATTEMPTS)]
    assert results[:-1] == [None] * (2 * ATTEMPTS - 1)
    assert results[-1] is not None
    assert (results[-1].of(TaskType.DEDUCTION), results[-1].asked[TaskType.DEDUCTION]) == (0.0, 2)
    assert not rounds.active


def test_an_answer_to_no_question_is_ignored() -> None:
    rounds = evaluation()
    assert rounds.deliver(answer(lease_id(Kind.EVAL, 99), True)) is None


def test_held_out_takes_the_first_of_each_type(tmp_path: Path) -> None:
    tasks = [a_task(f"{i}", t) for i in range(3) for t in TaskType]
    (tmp_path / "heldout.jsonl").write_text("\n".join(map(task_to_json, tasks)) + "\n")
    assert held_out(tmp_path, 2) == [a_task(f"{i}", t) for t in TaskType for i in range(2)]
    assert held_out(tmp_path, 0) == []
    with pytest.raises(ConfigError, match=r"holds 9 tasks, too few for eval\.tasks=4"):
        held_out(tmp_path, 4)


def test_held_out_tasks_that_are_missing_are_named(tmp_path: Path) -> None:
    assert held_out(tmp_path, 0) == []
    with pytest.raises(ConfigError, match=r"heldout\.jsonl is missing"):
        held_out(tmp_path, 1)
