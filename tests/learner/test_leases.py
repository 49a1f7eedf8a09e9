"""What leases contain depends on the run's seed, the lease and the book, and on nothing else."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.composite import CompositeConfig
from common.config import Config, EnvironmentConfig, RunConfig
from common.types import TASK_TYPES, Kind, TaskType
from learner.leases import LeaseMaker, blank, kind_of, lease_id, sequence_of
from learner.task_book import TaskBook
from tests.fakes.groups import a_task


@pytest.fixture
def book(tmp_path: Path) -> TaskBook:
    return TaskBook(tmp_path / "tasks.sqlite", [a_task(f"{i}", t) for t in TASK_TYPES for i in range(20)], Config())


@given(st.sampled_from(Kind), st.integers(0, 1 << 50))
def test_an_id_says_kind_and_number(kind: Kind, number: int) -> None:
    lease = lease_id(kind, number)
    assert (kind_of(lease), sequence_of(lease)) == (kind, number)


def test_ids_of_one_kind_grow_and_kinds_never_collide() -> None:
    ids = [lease_id(kind, number) for number in range(5) for kind in Kind]
    assert ids == sorted(set(ids))


def test_an_equal_lease_carries_equal_material_whoever_came_first(book: TaskBook) -> None:
    ids = [lease_id(kind, number) for kind in Config().algorithm.streams for number in range(6)]
    forwards = LeaseMaker(Config(), book)
    backwards = LeaseMaker(Config(), book)
    made = {i: forwards.make(i, version=0) for i in ids}
    assert {i: backwards.make(i, version=0) for i in reversed(ids)} == made
    assert len({lease.seed for lease in made.values()}) == len(ids)


def test_another_run_draws_other_material(book: TaskBook) -> None:
    ids = [lease_id(Kind.SOLVE_DEDUCTION, number) for number in range(10)]
    one, other = (LeaseMaker(Config(run=RunConfig(seed=seed)), book) for seed in (1, 2))
    assert [one.make(i, 0).task for i in ids] != [other.make(i, 0).task for i in ids]


def test_each_kind_gets_what_it_needs(book: TaskBook) -> None:
    maker = LeaseMaker(Config(), book)
    proposal = maker.make(lease_id(Kind.PROPOSE_ABDUCTION, 0), version=3)
    assert [task.type for task in proposal.references] == [TaskType.ABDUCTION]
    assert (proposal.task, proposal.samples, proposal.version, proposal.attempt) == (None, 6, 3, 0)
    induction = maker.make(lease_id(Kind.PROPOSE_INDUCTION, 0), version=0)
    assert len(induction.references) == 1 and induction.references[0].type is not TaskType.INDUCTION
    solving = maker.make(lease_id(Kind.SOLVE_INDUCTION, 0), version=0)
    assert solving.task is not None and solving.task.type is TaskType.INDUCTION
    assert solving.references == ()


def test_evaluations_before_and_after_draw_the_same_random_numbers(book: TaskBook) -> None:
    maker = LeaseMaker(Config(), book)
    task = a_task("held out")
    before = maker.evaluation(lease_id(Kind.EVAL, 0), 0, task, 0.5)
    after = maker.evaluation(lease_id(Kind.EVAL, 900), 60, task, 0.5)
    assert before.seed == after.seed
    assert (after.kind, after.samples, after.temperature, after.task) == (Kind.EVAL, 1, 0.5, task)
    assert maker.evaluation(1, 0, a_task("another"), 0.5).seed != before.seed
    assert (before.begun, maker.evaluation(1, 0, task, 0.5, "<think>").begun) == ("", "<think>")


@pytest.mark.parametrize(("count", "shown"), [(0, {0}), (6, {6})])
def test_as_many_references_as_the_configuration_says(book: TaskBook, count: int, shown: set[int]) -> None:
    maker = LeaseMaker(Config(environment=EnvironmentConfig(references=count)), book)
    for kind in (Kind.PROPOSE_DEDUCTION, Kind.PROPOSE_ABDUCTION):
        assert {len(maker.make(lease_id(kind, n), 0).references) for n in range(5)} == shown
        assert len(maker.seed(1, blank(kind.task_type), 0).references) == count
    assert len(maker.make(lease_id(Kind.PROPOSE_INDUCTION, 0), 0).references) == 1


def test_a_seed_lease_depends_on_its_number_and_not_on_its_lease(book: TaskBook) -> None:
    maker = LeaseMaker(Config(), book)
    first, again = (maker.seed(lease_id(Kind.SEED, n), blank(TaskType.ABDUCTION), 4) for n in (0, 9))
    assert (first.kind, first.version, first.samples) == (Kind.SEED, 0, 0)
    assert (first.seed, first.references) == (again.seed, again.references)
    assert [task.type for task in first.references] == [TaskType.ABDUCTION]
    assert maker.seed(1, blank(TaskType.ABDUCTION), 5).seed != first.seed
    assert maker.seed(1, blank(TaskType.DEDUCTION), 4).seed != first.seed
    (program,) = maker.seed(1, blank(TaskType.INDUCTION), 0).references
    assert program.type is not TaskType.INDUCTION
    assert maker.seed(1, a_task("from a file"), 0).references == ()


# -- composites --------------------------------------------------------------------------------------------------

PAIRS = (Kind.PROPOSE_DEDUCTION, Kind.PROPOSE_ABDUCTION)
COMPOSITES = CompositeConfig(start=4, interval=2, chance=0.5, chance_step=0.1, chance_max=0.6, most=1, most_max=3)
IDS = [lease_id(kind, number) for kind in Kind if "/" in kind and kind.task_type in TASK_TYPES for number in range(60)]


def test_components_change_nothing_else(book: TaskBook) -> None:
    plain, composing = LeaseMaker(Config(), book), LeaseMaker(Config(composite=COMPOSITES), book)
    for version in (0, 3):
        assert [composing.make(i, version) for i in IDS] == [plain.make(i, version) for i in IDS]
    made = [composing.make(i, 8) for i in IDS]
    assert [dataclasses.replace(lease, components=()) for lease in made] == [plain.make(i, 8) for i in IDS]
    assert {lease.kind for lease in made if lease.components} == set(PAIRS)
    assert composing.seed(1, blank(TaskType.DEDUCTION), 0) == plain.seed(1, blank(TaskType.DEDUCTION), 0)


def test_an_equal_lease_draws_equal_components(book: TaskBook) -> None:
    config = Config(composite=COMPOSITES)
    forwards = {i: LeaseMaker(config, book).make(i, 8).components for i in IDS}
    assert {i: LeaseMaker(config, book).make(i, 8).components for i in reversed(IDS)} == forwards
    other = dataclasses.replace(config, run=RunConfig(seed=1))
    assert {i: LeaseMaker(other, book).make(i, 8).components for i in IDS} != forwards


@pytest.mark.parametrize(("version", "chance", "most"), [(4, 0.5, 1), (6, 0.6, 2), (8, 0.6, 3), (99, 0.6, 3)])
def test_as_many_and_as_often_as_the_schedule_says(book: TaskBook, version: int, chance: float, most: int) -> None:
    maker = LeaseMaker(Config(composite=COMPOSITES), book)
    counts = Counter(len(maker.make(lease_id(kind, n), version).components) for kind in PAIRS for n in range(300))
    assert set(counts) == set(range(most + 1))
    assert abs(1 - counts[0] / 600 - chance) < 0.07
    assert all(abs(counts[c] / 600 - chance / most) < 0.07 for c in range(1, most + 1))


@pytest.mark.parametrize(("size", "counts"), [(1, {0}), (2, {2}), (9, {2, 3})])
def test_never_fewer_than_the_least(tmp_path: Path, size: int, counts: set[int]) -> None:
    """Of a book that has not enough programs, nothing is composed."""
    config = Config(composite=CompositeConfig(start=0, chance=1.0, chance_max=1.0, least=2, most=3))
    book = TaskBook(tmp_path / "small.sqlite", [a_task(f"{i}") for i in range(size)], config)
    maker = LeaseMaker(config, book)
    assert {len(maker.make(lease_id(Kind.PROPOSE_DEDUCTION, n), 0).components) for n in range(40)} == counts
