"""Evaluation rounds: which versions, what is asked and counted, and what a failure costs."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.config import EvalConfig
from common.errors import ConfigError
from common.types import TASK_TYPES, Group, Kind, Task
from learner.evaluation import ATTEMPTS, EvalSet, Evaluation, Question, held_out, held_out_programs, questions
from learner.leases import lease_id
from learner.task_book import task_to_json
from tests.fakes.groups import a_group, a_sample, a_task

D, A, I = TASK_TYPES  # noqa: E741
ONE, TWO, THREE = Question(a_task("one")), Question(a_task("two")), Question(a_task("three", A))
STANDARD = EvalSet.STANDARD


def evaluation(*asked: Question, every: int = 0, last: int = 10) -> Evaluation:
    return Evaluation(asked, EvalConfig(every=every), last)


def answer(lease: int, correct: bool) -> Group:
    return a_group(lease, Kind.EVAL, [a_sample(Kind.SOLVE_DEDUCTION, correct=correct, trainable=False)])


def failed(lease: int) -> Group:
    return a_group(lease, Kind.EVAL, failure="infra")


def grant(rounds: Evaluation, number: int) -> int:
    lease = lease_id(Kind.EVAL, number)
    assert rounds.next_question() is not None
    rounds.granted(lease)
    return lease


def test_before_after_and_every_so_often() -> None:
    assert [v for v in range(11) if evaluation(ONE).due(v)] == [0, 10]
    assert [v for v in range(11) if evaluation(ONE, every=4).due(v)] == [0, 4, 8, 10]
    assert not evaluation().due(0)


def test_a_round_counts_right_answers_by_type() -> None:
    rounds = evaluation(ONE, TWO, THREE)
    rounds.begin(0)
    leases = [grant(rounds, i) for i in range(3)]
    assert rounds.next_question() is None
    assert rounds.deliver(answer(leases[2], True)) is None
    assert rounds.deliver(answer(leases[0], True)) is None
    assert rounds.active
    result = rounds.deliver(answer(leases[1], False))
    assert result is not None and result.version == 0
    assert list(result.right.items()) == [(ONE, True), (TWO, False), (THREE, True)]
    assert [result.accuracy(STANDARD, t) for t in (D, A, I)] == [0.5, 1.0, 0.0]
    assert [result.asked(STANDARD, t) for t in (D, A, I)] == [2, 1, 0]
    assert result.accuracies() == {"deduction": 0.5, "abduction": 1.0, "induction": 0.0}
    assert result.sets == (STANDARD,)
    assert not rounds.active


def test_each_set_is_counted_apart_though_the_task_is_the_same() -> None:
    harder = Question(a_task("harder"), EvalSet.HARDER)
    forced = Question(ONE.task, EvalSet.FORCED)
    rounds = evaluation(ONE, TWO, harder, forced)
    rounds.begin(0)
    for number, right in enumerate((False, True, False, True)):
        result = rounds.deliver(answer(grant(rounds, number), right))
    assert result is not None
    assert result.sets == (EvalSet.STANDARD, EvalSet.HARDER, EvalSet.FORCED)
    assert [result.accuracy(s, D) for s in result.sets] == [0.5, 0.0, 1.0]
    assert [result.asked(s, D) for s in EvalSet] == [2, 1, 1, 0]


def test_thoughts_are_begun_for_the_base_alone() -> None:
    rounds = evaluation(ONE, Question(ONE.task, EvalSet.FORCED))
    rounds.begin(0)
    assert [rounds.deliver(answer(grant(rounds, number), True)) is None for number in (0, 1)] == [True, False]
    rounds.begin(10)
    result = rounds.deliver(answer(grant(rounds, 2), True))
    assert result is not None and result.sets == (STANDARD,)


def test_a_round_is_held_once() -> None:
    rounds = evaluation(ONE)
    rounds.begin(0)
    assert not rounds.due(0)
    lease = grant(rounds, 0)
    assert rounds.deliver(answer(lease, True)) is not None
    assert not rounds.due(0)
    assert rounds.deliver(answer(lease, True)) is None
    assert len(rounds.rounds) == 1


def test_rounds_do_not_share_counts() -> None:
    rounds = evaluation(ONE)
    for number, version in enumerate((0, 10)):
        rounds.begin(version)
        rounds.deliver(answer(grant(rounds, number), version == 0))
    assert [(r.version, r.accuracy(STANDARD, D)) for r in rounds.rounds] == [(0, 1.0), (10, 0.0)]


def test_a_failed_group_puts_its_question_back() -> None:
    rounds = evaluation(ONE)
    rounds.begin(0)
    assert rounds.deliver(failed(grant(rounds, 0))) is None
    assert rounds.active
    result = rounds.deliver(answer(grant(rounds, 1), True))
    assert result is not None and result.accuracy(STANDARD, D) == 1.0


def test_a_question_that_always_fails_counts_as_not_solved() -> None:
    rounds = evaluation(ONE, TWO)
    rounds.begin(0)
    results = [rounds.deliver(failed(grant(rounds, number))) for number in range(2 * ATTEMPTS)]
    assert results[:-1] == [None] * (2 * ATTEMPTS - 1)
    assert results[-1] is not None
    assert (results[-1].accuracy(STANDARD, D), results[-1].asked(STANDARD, D)) == (0.0, 2)
    assert not rounds.active


def test_an_answer_to_no_question_is_ignored() -> None:
    assert evaluation(ONE).deliver(answer(lease_id(Kind.EVAL, 99), True)) is None


# -- questions ---------------------------------------------------------------------------------------------------


def some(name: str, per_type: int = 3) -> list[Task]:
    return [a_task(f"{name} {i}", t) for i in range(per_type) for t in TASK_TYPES]


def write(path: Path, tasks: list[Task]) -> None:
    path.write_text("\n".join(map(task_to_json, tasks)) + "\n")


def test_held_out_takes_the_first_of_each_type(tmp_path: Path) -> None:
    write(tmp_path / "heldout.jsonl", some("a"))
    assert held_out(tmp_path, 2) == [a_task(f"a {i}", t) for t in TASK_TYPES for i in range(2)]
    assert held_out(tmp_path, 0) == []
    with pytest.raises(ConfigError, match=r"holds 9 tasks, too few for eval\.tasks=4"):
        held_out(tmp_path, 4)


def test_held_out_tasks_that_are_missing_are_named(tmp_path: Path) -> None:
    assert questions(tmp_path, EvalConfig(tasks=0, forced=True)) == []
    with pytest.raises(ConfigError, match=r"heldout\.jsonl is missing: set eval\.tasks=0"):
        questions(tmp_path, EvalConfig(tasks=1))
    with pytest.raises(ConfigError, match=r"heldout_harder\.jsonl is missing: set eval\.harder=0"):
        questions(tmp_path, EvalConfig(tasks=0, harder=1))


def test_what_a_round_asks(tmp_path: Path) -> None:
    write(tmp_path / "heldout.jsonl", some("a"))
    write(tmp_path / "heldout_harder.jsonl", some("b"))
    plain = [Question(a_task("a 0", t)) for t in TASK_TYPES]
    harder = [Question(a_task(f"b {i}", t), EvalSet.HARDER) for t in TASK_TYPES for i in range(2)]
    assert questions(tmp_path, EvalConfig(tasks=1)) == plain
    assert questions(tmp_path, EvalConfig(tasks=1, harder=2)) == plain + harder
    forced = questions(tmp_path, EvalConfig(tasks=1, harder=2, forced=True))[len(plain + harder) :]
    assert [q.task for q in forced] == [q.task for q in plain + harder]
    assert [q.set for q in forced] == [EvalSet.FORCED] * 3 + [EvalSet.HARDER_FORCED] * 6
    assert {(q.set.begun, "forced" in q.set) for q in plain + harder + forced} == {("", False), ("<think>", True)}


def test_held_out_programs_are_those_of_all_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert held_out_programs(tmp_path) == frozenset()
    for file, names in (("heldout.jsonl", "ab"), ("heldout_harder.jsonl", "bc"), ("other.jsonl", "d")):
        (tmp_path / file).write_text("".join(task_to_json(a_task(name, program=name)) + "\n" for name in names))
    assert held_out_programs(tmp_path) == {"a", "b", "c"}
    assert caplog.text == ""
    (tmp_path / "heldout.jsonl").write_text(task_to_json(a_task("a")) + "\n")
    assert held_out_programs(tmp_path) == {"b", "c"}
    assert "heldout.jsonl has rows without program_key" in caplog.text
