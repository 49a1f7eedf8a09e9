"""Ages of tasks, by hand: step minus the version with which each came."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from common.config import Config
from common.types import Kind, Span
from learner.leases import lease_id
from learner.task_age import task_ages
from learner.task_book import TaskBook
from tests.fakes.groups import a_group, a_sample, a_task

PROPOSE, SOLVE = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION
ENTERED = {"seed": 0, "old": 2, "new": 6}


def test_references_and_solver_tasks_are_as_old_as_their_entry() -> None:
    proposals = [
        replace(a_group(lease_id(PROPOSE, 0), PROPOSE, [a_sample(PROPOSE)]), references=("seed", "new")),
        replace(a_group(lease_id(PROPOSE, 1), PROPOSE, [a_sample(PROPOSE)]), references=("old", "unknown")),
    ]
    solves = [replace(a_group(lease_id(SOLVE, 0), SOLVE, [a_sample(SOLVE)]), asked=key) for key in ("new", "old", "?")]
    assert task_ages(7, [*proposals, *solves], ENTERED.get) == {
        "staleness/references": (7 + 1 + 5) / 3,
        "staleness/references_max": 7.0,
        "staleness/tasks": (1 + 5) / 2,
        "staleness/tasks_max": 5.0,
    }


def test_a_solve_rate_is_as_old_as_its_oldest_answer() -> None:
    proposal = a_sample(PROPOSE, version=1)
    answers = [a_sample(SOLVE, version=4), a_sample(SOLVE, spans=(Span(3, 0, 1), Span(4, 1, 3)))]
    measured = a_group(lease_id(PROPOSE, 0), PROPOSE, [proposal, *answers], proposal=a_task("x"), solve_rate=0.5)
    later = a_group(lease_id(PROPOSE, 1), PROPOSE, [proposal, answers[0]], proposal=a_task("y"), solve_rate=0.5)
    book_task = a_group(lease_id(SOLVE, 0), SOLVE, [a_sample(SOLVE, version=0)], solve_rate=0.5)
    ages = task_ages(5, [measured, later, book_task], ENTERED.get)
    assert ages == {"staleness/solve_rates": 1.5, "staleness/solve_rates_max": 2.0}


def test_a_batch_without_either_says_nothing() -> None:
    assert task_ages(5, [a_group(lease_id(PROPOSE, 0), PROPOSE, [a_sample(PROPOSE)])], ENTERED.get) == {}


def test_the_book_knows_when_a_task_came(tmp_path: Path) -> None:
    book = TaskBook(tmp_path / "tasks.sqlite", [a_task("seed")], Config())
    book.add(3, [(7, a_task("new"), 0.5), (8, a_task("seed"), 0.5)])
    assert [book.entered(a_task(name).key) for name in ("seed", "new", "other")] == [0, 3, None]
    book.rewind(2)
    assert book.entered(a_task("new").key) is None
    book.close()
