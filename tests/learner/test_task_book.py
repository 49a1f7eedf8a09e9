"""The book grows batch by batch, can be wound back, and is drawn from without regard to time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.types import Kind, Task, TaskType
from learner.task_book import TaskBook, task_from_json, task_to_json
from tests.fakes.groups import a_group, a_task

SEEDS = [a_task("seed", t) for t in TaskType]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.sqlite"


def names(book: TaskBook, task_type: TaskType = TaskType.DEDUCTION) -> set[str]:
    """Keys of all tasks of a type, as drawing shows them."""
    size = book.sizes[task_type]
    return {task.key.partition(":")[2] for task in book.references(random.Random(0), task_type, size)}


def test_a_new_book_holds_its_seeds_and_an_old_one_does_not_take_them_again(path: Path) -> None:
    assert set(TaskBook(path, SEEDS).sizes.values()) == {1}
    assert set(TaskBook(path, [*SEEDS, a_task("late")]).sizes.values()) == {1}


def test_only_valid_proposals_of_a_batch_enter(path: Path) -> None:
    book = TaskBook(path, SEEDS)
    batch = [
        a_group(0, Kind.PROPOSE_DEDUCTION, proposal=a_task("new"), solve_rate=0.5),
        a_group(8, Kind.PROPOSE_DEDUCTION),
        a_group(16, Kind.PROPOSE_DEDUCTION, proposal=a_task("new"), solve_rate=0.0),
        a_group(24, Kind.PROPOSE_DEDUCTION, proposal=a_task("seed"), solve_rate=1.0),
    ]
    assert book.add_batch(1, batch) == 1
    assert names(book) == {"seed", "new"}
    new, unseen = a_task("new").key, a_task("unseen").key
    assert book.knows([new, unseen]) == (True, False)


def test_it_survives_its_process(path: Path) -> None:
    TaskBook(path, SEEDS).add(1, [(0, a_task("kept"), 0.5)])
    assert names(TaskBook(path, SEEDS)) == {"seed", "kept"}


def test_rewind_is_the_book_as_of_a_version(path: Path) -> None:
    book = TaskBook(path, SEEDS)
    for version in (1, 2, 3):
        book.add(version, [(version, a_task(f"v{version}"), 0.5)])
    book.rewind(2)
    assert names(book) == {"seed", "v1", "v2"}
    assert book.knows([a_task("v3").key]) == (False,)
    assert names(TaskBook(path, SEEDS)) == {"seed", "v1", "v2"}
    assert book.add(3, [(9, a_task("v3"), 0.5)]) == 1
    book.rewind(0)
    assert names(book) == {"seed"}


def test_rewinding_and_adding_again_draws_the_same(path: Path, tmp_path: Path) -> None:
    straight, detour = TaskBook(path, SEEDS), TaskBook(tmp_path / "other.sqlite", SEEDS)
    for book in (straight, detour):
        book.add(1, [(i, a_task(f"a{i}"), 0.5) for i in range(5)])
    detour.add(2, [(99, a_task("mistake"), 0.5)])
    detour.rewind(1)
    for book in (straight, detour):
        book.add(2, [(i, a_task(f"b{i}"), 0.5) for i in range(5)])

    def drawn(book: TaskBook) -> list[Task]:
        return [book.task(random.Random(i), TaskType.DEDUCTION) for i in range(20)]

    assert drawn(straight) == drawn(detour)


def test_references_are_distinct_and_as_many_as_there_are(path: Path) -> None:
    book = TaskBook(path, SEEDS)
    book.add(1, [(i, a_task(f"{i}", TaskType.ABDUCTION), None) for i in range(3)])
    drawn = book.references(random.Random(1), TaskType.ABDUCTION, 10)
    assert len({task.key for task in drawn}) == len(drawn) == 4
    assert len(book.references(random.Random(1), TaskType.ABDUCTION, 2)) == 2


def test_an_induction_proposer_is_given_one_program_of_either_pair_type(path: Path) -> None:
    book = TaskBook(path, SEEDS)
    drawn = [book.references(random.Random(i), TaskType.INDUCTION, 5) for i in range(50)]
    assert {len(tasks) for tasks in drawn} == {1}
    assert {task.type for (task,) in drawn} == {TaskType.DEDUCTION, TaskType.ABDUCTION}


texts = st.text(max_size=20)


@given(st.builds(Task, st.sampled_from(TaskType), texts, st.tuples(texts), st.tuples(texts, texts), texts, texts))
def test_a_task_survives_json(task: Task) -> None:
    assert task_from_json(task_to_json(task)) == task
