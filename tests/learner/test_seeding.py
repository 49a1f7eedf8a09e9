"""Seeding in rounds: what is asked, what enters the book, and how it ends."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from common import seed_rows
from common.config import AlgorithmConfig, Config, RunConfig, SeedsConfig
from common.errors import ConfigError, PartFailed
from common.types import TASK_TYPES, Group, Kind, Task, TaskType
from learner.leases import LeaseMaker, lease_id
from learner.seeding import ATTEMPTS, ROUND, SPARE, Seeding
from learner.task_book import SURPLUS, TaskBook
from tests.fakes.groups import a_group, a_task, seeded

D, A, I = TaskType.DEDUCTION, TaskType.ABDUCTION, TaskType.INDUCTION  # noqa: E741
GIVEN = [a_task("identity", task_type) for task_type in TASK_TYPES]
ALGORITHM = AlgorithmConfig()
Model = Callable[[TaskType, int], str]  # the status of a proposal, or the name of its task


def always(task_type: TaskType, number: int) -> str:
    return f"{task_type} {number}"


class Scene:
    """A book that is seeded by a model; `order` shuffles the answers of a round."""

    def __init__(
        self,
        seeds: SeedsConfig,
        path: Path = Path(":memory:"),
        order: int | None = None,
        algorithm: AlgorithmConfig = ALGORITHM,
        given: Sequence[Task] = GIVEN,
    ) -> None:
        self.config = Config(run=RunConfig(seed=3), seeds=seeds, algorithm=algorithm)
        self.book = TaskBook(path, given, self.config)
        self.seeding = Seeding(self.config, self.book)
        self.maker = LeaseMaker(self.config, self.book)
        self.leases = 0
        self.rng = random.Random(order)
        self.shuffled = order is not None

    def round(self) -> list[tuple[int, TaskType, int]]:
        """(lease, type, number) of all that can be granted now, in the order of granting."""
        granted = []
        while (slot := self.seeding.next_slot()) is not None:
            lease = lease_id(Kind.SEED, self.leases)
            self.leases += 1
            self.seeding.granted(lease)
            granted.append((lease, slot.task.type, slot.number))
        return granted

    def answer(self, model: Model, lease: int, task_type: TaskType, number: int) -> Group:
        said = model(task_type, number)
        made = self.maker.seed(lease, a_task(said, task_type), number)
        return seeded(made, status="ok", name=said) if " " in said else seeded(made, status=said)

    def play(self, model: Model) -> list[list[tuple[TaskType, int]]]:
        """Until it is over; (type, number) of each round."""
        rounds = []
        if not self.seeding.active:
            self.seeding.begin()
        while self.seeding.active:
            granted = self.round()
            rounds.append([(task_type, number) for _, task_type, number in granted])
            if self.shuffled:
                self.rng.shuffle(granted)
            for lease, task_type, number in granted:
                self.seeding.deliver(self.answer(model, lease, task_type, number))
        return rounds


def test_nothing_is_asked_without_seeds() -> None:
    scene = Scene(SeedsConfig())
    assert scene.play(always) == []


def test_each_type_gets_what_it_needs_and_induction_comes_last() -> None:
    scene = Scene(SeedsConfig(tasks=5))
    rounds = scene.play(always)
    assert scene.book.added == {D: 5, A: 5, I: 5}  # the identity is one of them
    assert [{task_type for task_type, _ in asked} for asked in rounds] == [{D, A}, {I}]
    assert [number for task_type, number in rounds[0] if task_type is D] == list(range(2 * 4 + SPARE))


def test_rounds_are_bounded_and_the_last_are_not_of_one_proposal() -> None:
    scene = Scene(SeedsConfig(tasks=200))
    sizes = [sum(task_type is D for task_type, _ in asked) for asked in scene.play(always)]
    assert sizes[:4] == [ROUND] * 3 + [2 * (200 - 1 - 3 * ROUND) + SPARE]


def test_the_seeds_do_not_depend_on_who_answers_first() -> None:
    def some(task_type: TaskType, number: int) -> str:
        return ["error", "a task", f"{task_type} {number}", f"{task_type} {number % 5}"][number % 4]

    books = []
    for order in (None, 1, 2):
        scene = Scene(SeedsConfig(tasks=20), order=order)
        scene.play(some)
        books.append([task.key for task in scene.book.seeds])
    assert books[0] == books[1] == books[2]
    assert len(set(books[0])) == len(books[0]) == 3 * 19


def test_a_failed_proposal_is_made_again_and_changes_nothing() -> None:
    scene, straight = Scene(SeedsConfig(tasks=3)), Scene(SeedsConfig(tasks=3))
    straight.play(always)
    scene.seeding.begin()
    failed = set()
    while scene.seeding.active:
        for lease, task_type, number in scene.round():
            first = (task_type, number) not in failed
            failed.add((task_type, number))
            group = a_group(lease, Kind.SEED, failure="infra") if first else None
            scene.seeding.deliver(group or scene.answer(always, lease, task_type, number))
    assert [task.key for task in scene.book.seeds] == [task.key for task in straight.book.seeds]


def test_a_proposal_that_always_fails_counts_as_one_that_came_to_nothing() -> None:
    scene = Scene(SeedsConfig(tasks=2))
    scene.seeding.begin()
    for _ in range(ATTEMPTS):
        for lease, task_type, number in scene.round():
            lost = (task_type, number) == (D, 0)
            group = a_group(lease, Kind.SEED, failure="infra") if lost else None
            scene.seeding.deliver(group or scene.answer(always, lease, task_type, number))
    assert scene.book.seed_counts()[D]["infra"] == 1
    assert scene.book.added[D] == 2


def test_too_few_valid_proposals_end_with_what_they_failed_of() -> None:
    def poor(task_type: TaskType, number: int) -> str:
        return "format" if number % 3 else "error" if number else "one task"

    scene = Scene(SeedsConfig(tasks=4, tries=40))
    with pytest.raises(PartFailed) as failure:
        scene.play(poor)
    assert "only 2 of seeds.tasks=4 deduction tasks after 40 proposals" in failure.value.what
    assert "format 26, error 13" in failure.value.what
    assert "seeds.tries" in failure.value.hint
    assert scene.seeding.active and scene.seeding.next_slot() is None
    assert scene.book.seed_counts()[D].total() == scene.book.seed_counts()[A].total() == 40


def test_after_a_crash_it_goes_on_with_the_round_it_was_in(tmp_path: Path) -> None:
    settings = SeedsConfig(tasks=100)
    straight = Scene(settings)
    straight.play(always)
    first = Scene(settings, path=tmp_path / "tasks.sqlite")
    first.seeding.begin()
    for _ in range(2):  # two rounds, the second of which is left open
        granted = first.round()
        for lease, task_type, number in granted[: None if first.leases == len(granted) else -1]:
            first.seeding.deliver(first.answer(always, lease, task_type, number))
    first.book.close()

    second = Scene(settings, path=tmp_path / "tasks.sqlite")
    rounds = second.play(always)
    assert rounds[0][0] == (D, ROUND)
    assert [task.key for task in second.book.seeds] == [task.key for task in straight.book.seeds]
    assert Scene(settings, path=tmp_path / "tasks.sqlite").play(always) == []


def test_more_tries_let_a_run_go_on_that_had_ended(tmp_path: Path) -> None:
    def late(task_type: TaskType, number: int) -> str:
        return f"{task_type} {number}" if number >= 30 else "error"

    with pytest.raises(PartFailed):
        Scene(SeedsConfig(tasks=3, tries=20), path=tmp_path / "tasks.sqlite").play(late)
    again = Scene(SeedsConfig(tasks=3, tries=50), path=tmp_path / "tasks.sqlite")
    again.play(late)
    assert again.book.added == {D: 3, A: 3, I: 3}


File = Callable[[Sequence[Task]], str]


@pytest.fixture
def file(tmp_path: Path) -> File:
    """Writes tasks to a file and returns its path."""

    def write(tasks: Sequence[Task]) -> str:
        seed_rows.write(tmp_path / "seeds.jsonl", tasks)
        return str(tmp_path / "seeds.jsonl")

    return write


def test_rows_of_a_file_are_asked_for_once_each_and_as_they_are(file: File) -> None:
    rows = [a_task(f"{task_type} row {n}", task_type) for n in range(ROUND + 2) for task_type in (I, D)]
    scene = Scene(SeedsConfig(load=file(rows)))
    scene.seeding.begin()
    slot = scene.seeding.next_slot()
    assert slot is not None and slot.task == replace(rows[1], key="")
    rounds = scene.play(lambda task_type, number: "error" if number == 1 else f"{task_type} row {number}")
    assert [len(asked) for asked in rounds] == [ROUND, 2, ROUND, 2]
    assert scene.book.added == {D: 1 + ROUND + 1, A: 1, I: 1 + ROUND + 1}
    assert scene.book.seed_counts()[I] == {"ok": ROUND + 1, "error": 1}


def test_what_the_rows_leave_missing_is_proposed_once_all_are_read(file: File) -> None:
    """Of deduction 8 rows, two of them invalid; of abduction more than wanted; of induction none."""
    rows = [a_task(f"row {n}", D) for n in range(8)] + [a_task(f"row {n}", A) for n in range(12)]
    scene = Scene(SeedsConfig(tasks=9, load=file(rows)))

    def model(task_type: TaskType, number: int) -> str:
        return "error" if task_type is D and number in (2, 5) else f"{task_type} {number}"

    asked = scene.play(model)
    assert asked[0] == [(D, n) for n in range(8)] + [(A, n) for n in range(12)]
    assert asked[1] == [(D, 8 + n) for n in range(2 * 2 + SPARE)]  # the identity and six rows are there
    assert asked[2] == [(I, n) for n in range(2 * 8 + SPARE)]
    assert scene.book.added == {D: 9, A: 1 + 12, I: 9}
    assert [task.program for task in scene.book.seeds if task.type is D] == [
        a_task(f"deduction {n}", D).program for n in (0, 1, 3, 4, 6, 7, 8, 9)
    ]
    assert scene.book.seed_counts()[D] == {"ok": 8, "error": 2, SURPLUS: 2 * 2 + SPARE - 2}


def test_a_round_is_of_rows_or_of_proposals(file: File) -> None:
    scene = Scene(SeedsConfig(tasks=4, load=file([a_task("row 0", D), *(a_task(f"row {n}", I) for n in range(3))])))
    scene.seeding.begin()
    loaded = []
    while (slot := scene.seeding.next_slot()) is not None:
        granted = scene.round()
        loaded.append((slot.loaded, {task_type for _, task_type, _ in granted}))
        for lease, task_type, number in granted:
            scene.seeding.deliver(scene.answer(always, lease, task_type, number))
    assert loaded == [(True, {D}), (True, {I}), (False, {D, A})]
    assert scene.book.added == {D: 4, A: 4, I: 4}


def test_tries_bound_the_proposals_that_follow_a_file(file: File) -> None:
    def poor(task_type: TaskType, number: int) -> str:
        return "a row" if number == 0 else "syntax" if number == 1 else "format"

    rows = [a_task(f"row {n}", t) for t in TASK_TYPES for n in range(2)]
    scene = Scene(SeedsConfig(tasks=3, tries=5, load=file(rows)))
    said = r"only 2 of seeds\.tasks=3 deduction tasks after 2 rows and 5 proposals; .*: format 5, syntax 1"
    with pytest.raises(PartFailed, match=said) as failure:
        scene.play(poor)
    assert "seeds.tries" in failure.value.hint and "seeds.jsonl" in failure.value.hint
    assert scene.book.seed_counts()[D].total() == scene.book.seed_counts()[A].total() == 2 + 5


@pytest.mark.parametrize("rounds", [1, 2, 3, 4])
def test_after_a_crash_it_goes_on_with_the_row_or_the_proposal_it_was_at(
    file: File, tmp_path: Path, rounds: int
) -> None:
    settings = SeedsConfig(tasks=80, load=file([a_task(f"row {n}", D) for n in range(ROUND + 3)]))
    straight = Scene(settings, order=1)
    straight.play(always)
    first = Scene(settings, path=tmp_path / "tasks.sqlite")
    first.seeding.begin()
    for left in reversed(range(rounds)):  # the last of them is left open
        granted = first.round()
        for lease, task_type, number in granted if left else granted[:-1]:
            first.seeding.deliver(first.answer(always, lease, task_type, number))
    first.book.close()
    second = Scene(settings, path=tmp_path / "tasks.sqlite", order=2)
    second.play(always)
    assert second.book.added == {D: 80, A: 80, I: 80}
    assert [task.key for task in second.book.seeds] == [task.key for task in straight.book.seeds]


def test_seeds_are_saved_once_there_are_all_of_them(tmp_path: Path) -> None:
    scene = Scene(SeedsConfig(tasks=2, save=str(tmp_path / "saved.jsonl")))
    scene.seeding.begin()
    assert not (tmp_path / "saved.jsonl").exists()
    scene.play(always)
    saved = seed_rows.read(tmp_path / "saved.jsonl")
    assert [task.program for task in saved] == [task.program for task in scene.book.seeds]
    assert len(saved) == 3


def test_a_proposal_that_was_flagged_is_no_seed() -> None:
    scene = Scene(SeedsConfig(tasks=2))
    scene.seeding.begin()
    for lease, task_type, number in scene.round():
        group = scene.answer(always, lease, task_type, number)
        kept = number or task_type is A
        scene.seeding.deliver(group if kept else a_group(lease, Kind.SEED, group.samples))
    assert scene.book.seed_counts()[D]["flagged"] == 1
    assert [task.key for task in scene.book.seeds] == [a_task("deduction 1", D).key, a_task("abduction 0", A).key]


def test_progress_is_what_the_book_holds_of_what_is_wanted(file: File) -> None:
    scene = Scene(SeedsConfig(tasks=70))
    scene.seeding.begin()
    for lease, task_type, number in scene.round():
        scene.seeding.deliver(scene.answer(always, lease, task_type, number))
    assert scene.seeding.progress() == {"deduction": (65, 70), "abduction": (65, 70), "induction": (1, 70)}
    loaded = Scene(SeedsConfig(load=file([a_task("a row")])))
    assert loaded.seeding.progress() == {"deduction": (0, 1), "abduction": (0, 0), "induction": (0, 0)}
    both = Scene(SeedsConfig(tasks=4, load=file([a_task("a row")])))
    both.seeding.begin()
    assert both.seeding.progress() == {"deduction": (0, 1), "abduction": (0, 0), "induction": (0, 0)}
    ((lease, task_type, number),) = both.round()
    both.seeding.deliver(both.answer(always, lease, task_type, number))
    assert both.seeding.progress() == {"deduction": (2, 4), "abduction": (1, 4), "induction": (1, 4)}


def test_error_tasks_are_seeded_beside_the_other_pairs_where_the_run_has_them() -> None:
    given = [*GIVEN, a_task("identity", TaskType.ERROR)]
    scene = Scene(SeedsConfig(tasks=5), algorithm=AlgorithmConfig(error=True), given=given)
    rounds = scene.play(always)
    assert scene.book.added == {D: 5, A: 5, I: 5, TaskType.ERROR: 5}
    assert [{task_type for task_type, _ in asked} for asked in rounds] == [{D, A, TaskType.ERROR}, {I}]


def test_rows_of_a_type_that_the_run_does_not_have_are_not_passed_over(file: File) -> None:
    seeds = SeedsConfig(load=file([a_task("a row"), a_task("a row", TaskType.ERROR)]))
    with pytest.raises(ConfigError, match=r"seeds.jsonl has error tasks.*algorithm\.error=true"):
        Scene(seeds)
    scene = Scene(seeds, algorithm=AlgorithmConfig(error=True))
    scene.play(always)
    assert scene.book.added[TaskType.ERROR] == 1
