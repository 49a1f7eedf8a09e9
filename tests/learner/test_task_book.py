"""The book grows batch by batch, can be wound back, and is drawn from without regard to time."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import AlgorithmConfig, Config, EnvironmentConfig, IntrinsicConfig
from common.types import TASK_TYPES, Kind, Status, Task, TaskType
from learner.intrinsic import fold
from learner.task_book import SURPLUS, Seed, TaskBook, task_from_json, task_to_json
from tests.fakes.groups import a_group, a_task

SEEDS = [a_task("seed", t) for t in TASK_TYPES]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.sqlite"


def names(book: TaskBook, task_type: TaskType = TaskType.DEDUCTION) -> set[str]:
    """Keys of all tasks of a type, as drawing shows them."""
    size = book.sizes[task_type]
    return {task.key.partition(":")[2] for task in book.references(random.Random(0), task_type, size)}


def said(book: TaskBook, task: Task) -> str:
    return book.status(task.type, task.key, task.program_key)


def a_config(*, limit: int = 0, admit: str = "all", novelty: str = "program", sampling: str = "uniform") -> Config:
    return Config(
        environment=EnvironmentConfig(novelty=novelty),
        algorithm=AlgorithmConfig(book_limit=limit, admit=admit, reference_sampling=sampling, task_sampling=sampling),
    )


def test_a_run_with_error_deduction_has_a_pool_for_it(path: Path) -> None:
    plain = TaskBook(Path(":memory:"), SEEDS, Config())
    assert set(plain.sizes) == set(plain.added) == set(plain.seed_counts()) == set(TASK_TYPES)
    book = TaskBook(path, SEEDS, Config(algorithm=AlgorithmConfig(error=True)))
    book.add(1, [(0, a_task("e", TaskType.ERROR), 0.5)])
    assert book.sizes == dict.fromkeys(TASK_TYPES, 1) | {TaskType.ERROR: 1} == book.added
    rng = random.Random(0)
    assert book.task(rng, TaskType.ERROR, 1) == a_task("e", TaskType.ERROR)
    assert book.references(rng, TaskType.ERROR, 6) == (a_task("e", TaskType.ERROR),)
    shown = {book.references(random.Random(i), TaskType.INDUCTION, 1)[0].type for i in range(50)}
    assert shown == {TaskType.DEDUCTION, TaskType.ABDUCTION}  # a program that raises has no pairs to show


def test_a_new_book_holds_its_seeds_and_an_old_one_does_not_take_them_again(path: Path) -> None:
    assert set(TaskBook(path, SEEDS, Config()).sizes.values()) == {1}
    assert set(TaskBook(path, [*SEEDS, a_task("late")], Config()).sizes.values()) == {1}


def test_only_valid_proposals_of_a_batch_enter(path: Path) -> None:
    book = TaskBook(path, SEEDS, Config())
    batch = [
        a_group(0, Kind.PROPOSE_DEDUCTION, proposal=a_task("new"), solve_rate=0.5),
        a_group(8, Kind.PROPOSE_DEDUCTION),
        a_group(16, Kind.PROPOSE_DEDUCTION, proposal=a_task("new"), solve_rate=0.0),
        a_group(24, Kind.PROPOSE_DEDUCTION, proposal=a_task("seed"), solve_rate=1.0),
    ]
    assert book.add_batch(1, batch) == 1
    assert names(book) == {"seed", "new"}
    assert said(book, a_task("new")) == "known"
    assert said(book, a_task("unseen")) == "ok"


def test_what_is_on_its_way_is_what_will_be_added(path: Path) -> None:
    book = TaskBook(path, SEEDS, a_config(admit="unsolved"))
    proposals = [("seed", 0.5), ("new", 1.0), ("new", 0.5), ("late", 0.0)]
    first, second = (
        [a_group(i, Kind.PROPOSE_DEDUCTION, proposal=a_task(n), solve_rate=r) for i, (n, r) in enumerate(part)]
        for part in (proposals, [("late", 0.5), ("last", 0.5)])
    )
    entering = book.entering([first, second])
    assert list(entering) == ["deduction:new", "deduction:late", "deduction:last"]
    assert (book.add_batch(1, first), book.add_batch(2, second)) == (2, 1)
    assert names(book) == {"seed", "new", "late", "last"} and book.entering([first, second]) == {}


def test_a_task_is_found_by_its_key_whatever_a_pool_has_let_go_of(path: Path) -> None:
    book = TaskBook(path, SEEDS, a_config(limit=1))
    book.add(1, [(i, a_task(f"{i}"), 0.5) for i in range(5)])
    assert [book.find(a_task(f"{i}").key) for i in range(5)] == [a_task(f"{i}") for i in range(5)]
    assert book.find("no such key") is None
    book.rewind(0)
    assert book.find(a_task("0").key) is None and book.find(SEEDS[0].key) == SEEDS[0]


def test_values_are_counted_only_where_a_term_of_diversity_wants_it(path: Path) -> None:
    found = [(i, a_task(f"{i}"), 0.5) for i in range(3)]
    for settings, counted in (
        (IntrinsicConfig(halstead=1.0), []),
        (IntrinsicConfig(input_diversity=1.0), [*SEEDS, a_task("0"), a_task("1"), a_task("2")]),
    ):
        book = TaskBook(Path(":memory:"), SEEDS, Config(intrinsic=settings))
        book.add(1, found[:2])
        book.add(2, found)
        assert book.seen == fold(counted)
        book.rewind(1)
        assert book.seen == fold(counted[:-1])


def test_it_survives_its_process(path: Path) -> None:
    TaskBook(path, SEEDS, Config()).add(1, [(0, a_task("kept"), 0.5)])
    assert names(TaskBook(path, SEEDS, Config())) == {"seed", "kept"}


def test_rewind_is_the_book_as_of_a_version(path: Path) -> None:
    book = TaskBook(path, SEEDS, Config())
    for version in (1, 2, 3):
        book.add(version, [(version, a_task(f"v{version}"), 0.5)])
    book.rewind(2)
    assert names(book) == {"seed", "v1", "v2"}
    assert said(book, a_task("v3")) == "ok"
    assert names(TaskBook(path, SEEDS, Config())) == {"seed", "v1", "v2"}
    assert book.add(3, [(9, a_task("v3"), 0.5)]) == 1
    book.rewind(0)
    assert names(book) == {"seed"}


def test_rewinding_and_adding_again_draws_the_same(path: Path, tmp_path: Path) -> None:
    straight, detour = TaskBook(path, SEEDS, Config()), TaskBook(tmp_path / "other.sqlite", SEEDS, Config())
    for book in (straight, detour):
        book.add(1, [(i, a_task(f"a{i}"), 0.5) for i in range(5)])
    detour.add(2, [(99, a_task("mistake"), 0.5)])
    detour.rewind(1)
    for book in (straight, detour):
        book.add(2, [(i, a_task(f"b{i}"), 0.5) for i in range(5)])

    def drawn(book: TaskBook) -> list[Task]:
        return [book.task(random.Random(i), TaskType.DEDUCTION, 2) for i in range(20)]

    assert drawn(straight) == drawn(detour)


def test_references_are_distinct_and_as_many_as_there_are(path: Path) -> None:
    book = TaskBook(path, SEEDS, Config())
    book.add(1, [(i, a_task(f"{i}", TaskType.ABDUCTION), None) for i in range(3)])
    drawn = book.references(random.Random(1), TaskType.ABDUCTION, 10)
    assert len({task.key for task in drawn}) == len(drawn) == 4
    assert len(book.references(random.Random(1), TaskType.ABDUCTION, 2)) == 2


def test_an_induction_proposer_is_given_one_program_of_either_pair_type(path: Path) -> None:
    book = TaskBook(path, SEEDS, Config())
    drawn = [book.references(random.Random(i), TaskType.INDUCTION, 5) for i in range(50)]
    assert {len(tasks) for tasks in drawn} == {1}
    assert {task.type for (task,) in drawn} == {TaskType.DEDUCTION, TaskType.ABDUCTION}


def test_an_induction_proposer_is_given_the_identity_only_where_there_is_nothing_else(path: Path) -> None:
    book = TaskBook(path, SEEDS, Config())

    def given_() -> set[str]:
        return {book.references(random.Random(i), TaskType.INDUCTION, 1)[0].program for i in range(50)}

    assert given_() == {a_task("seed").program}
    book.add(1, [(1, a_task("i", TaskType.INDUCTION, program="r"), 0.5)])
    assert given_() == {a_task("seed").program}  # which is no program to write inputs for
    book.add(1, [(1, a_task("a", program="p"), 0.5), (2, a_task("b", TaskType.ABDUCTION, program="q"), 0.5)])
    assert given_() == {a_task("a").program, a_task("b").program}
    assert names(book) == {"seed", "a"}  # other proposers see it as before


# -- what is new -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "same_program", "same_task"), [("program", "known", "known"), ("task", "ok", "known"), ("off", "ok", "ok")]
)
def test_what_the_rule_calls_known(path: Path, rule: str, same_program: str, same_task: str) -> None:
    book = TaskBook(path, SEEDS, a_config(novelty=rule))
    book.add(1, [(1, a_task("a", program="p"), 0.5)])
    assert said(book, a_task("b", program="p")) == same_program
    assert said(book, a_task("a", program="p")) == same_task
    assert said(book, a_task("c", program="q")) == "ok"


def test_a_program_is_known_in_its_type_alone(path: Path) -> None:
    book = TaskBook(path, SEEDS, a_config())
    book.add(1, [(1, a_task("a", program="p"), 0.5)])
    assert said(book, a_task("b", TaskType.ABDUCTION, program="p")) == "ok"


def test_an_induction_proposal_is_known_by_its_inputs_for_its_program_was_given(path: Path) -> None:
    book = TaskBook(path, SEEDS, a_config())
    book.add(1, [(1, a_task("a", TaskType.INDUCTION, program="p"), 0.5)])
    assert said(book, a_task("b", TaskType.INDUCTION, program="p")) == "ok"
    assert said(book, a_task("a", TaskType.INDUCTION, program="p")) == "known"


@pytest.mark.parametrize("rule", ["program", "task", "off"])
def test_a_held_out_program_is_rejected_whatever_the_rule(path: Path, rule: str) -> None:
    book = TaskBook(path, SEEDS, a_config(novelty=rule), frozenset({"p"}))
    for task_type in TASK_TYPES:
        assert said(book, a_task("a", task_type, program="p")) == "heldout"
    assert said(book, a_task("a", program="q")) == "ok"
    assert said(book, a_task("a")) == "ok"


@pytest.mark.parametrize(
    ("admit", "entered"), [("all", {"0", "1", "2", "3"}), ("unsolved", {"0", "1", "3"}), ("learnable", {"1", "3"})]
)
def test_solve_rates_that_enter(path: Path, admit: str, entered: set[str]) -> None:
    book = TaskBook(path, [], a_config(admit=admit))
    book.add(1, [(i, a_task(f"{i}"), rate) for i, rate in enumerate([0.0, 0.5, 1.0, None])])
    assert names(book) == entered
    assert names(TaskBook(path, [], a_config(admit=admit))) == entered
    assert {i for i in range(4) if said(book, a_task(f"{i}")) == "known"} == {int(name) for name in entered}


def test_a_task_that_was_kept_out_may_come_again_with_another_solve_rate(path: Path) -> None:
    book = TaskBook(path, SEEDS, a_config(admit="learnable"))
    assert book.add(1, [(1, a_task("a"), 1.0)]) == 0
    assert book.add(2, [(2, a_task("a"), 0.5)]) == 1


# -- a limited book ----------------------------------------------------------------------------------------------


def filled(path: Path, count: int, limit: int = 8) -> TaskBook:
    book = TaskBook(path, [], a_config(limit=limit))
    for version in range(1, count + 1):
        book.add(version, [(version, a_task(f"{version}"), 0.5)])
    return book


def test_a_limited_book_still_takes_new_tasks_and_remembers_the_old(path: Path) -> None:
    book = filled(path, 100)
    assert (book.sizes[TaskType.DEDUCTION], book.added[TaskType.DEDUCTION]) == (8, 100)
    assert max(int(name) for name in names(book)) > 50
    assert {said(book, a_task(f"{i}")) for i in range(1, 101)} == {"known"}


def test_what_a_limited_book_keeps_is_a_matter_of_its_events_alone(path: Path, tmp_path: Path) -> None:
    book = filled(path, 60)
    book.rewind(40)
    straight = filled(tmp_path / "other.sqlite", 40)
    drawn = [[b.task(random.Random(i), TaskType.DEDUCTION, 40) for i in range(30)] for b in (book, straight)]
    assert drawn[0] == drawn[1]
    assert names(TaskBook(path, [], a_config(limit=8))) == names(straight)


# -- seeds -------------------------------------------------------------------------------------------------------


def a_seed(lease: int, name: str = "", status: str = "ok", task_type: TaskType = TaskType.DEDUCTION) -> Seed:
    return Seed(lease, task_type, status, a_task(name, task_type) if name else None)


def test_a_round_of_seeds_enters_in_its_order_and_says_what_became_of_the_rest(path: Path) -> None:
    book = TaskBook(path, SEEDS, Config())
    book.add_seeds([a_seed(9, "b"), a_seed(3, "a"), a_seed(4, "b"), a_seed(5, status="error"), a_seed(6, "c")], 3)
    assert [task.key for task in book.seeds] == [a_task("b").key, a_task("a").key]
    assert book.seed_counts()[TaskType.DEDUCTION] == {"ok": 2, Status.KNOWN: 1, "error": 1, SURPLUS: 1}
    assert book.seed_counts()[TaskType.ABDUCTION] == {}
    assert names(book) == {"seed", "a", "b"}


def test_seeds_are_what_every_rewind_goes_back_to(path: Path) -> None:
    book = TaskBook(path, SEEDS, Config())
    book.add_seeds([a_seed(1, "a"), a_seed(2, status="format")], 0)
    book.add(1, [(8, a_task("later"), 0.5)])
    book.rewind(0)
    assert names(book) == {"seed", "a"}
    assert book.seed_counts()[TaskType.DEDUCTION] == {"ok": 1, "format": 1}
    assert [task.key for task in TaskBook(path, SEEDS, Config()).seeds] == [a_task("a").key]


def test_a_held_out_program_is_no_seed(path: Path) -> None:
    book = TaskBook(path, SEEDS, Config(), frozenset({"p"}))
    book.add_seeds([Seed(1, TaskType.DEDUCTION, "ok", a_task("a", program="p"))], 0)
    assert book.seeds == [] and book.seed_counts()[TaskType.DEDUCTION] == {"heldout": 1}


def test_a_seed_that_the_book_holds_does_not_enter_again_though_any_proposal_may(path: Path) -> None:
    book = TaskBook(path, SEEDS, a_config(novelty="off"))
    twice, same_program = a_task("a", program="p"), a_task("b", program="p")
    book.add_seeds([Seed(i, TaskType.DEDUCTION, "ok", t) for i, t in enumerate([twice, same_program, twice])], 0)
    book.add_seeds([Seed(3, TaskType.DEDUCTION, "ok", twice)], 0)
    assert book.seeds == [twice, same_program] and book.added[TaskType.DEDUCTION] == 3
    assert book.seed_counts()[TaskType.DEDUCTION] == {"ok": 2, Status.KNOWN: 2}
    assert said(book, twice) == "ok"


def test_a_copy_is_measured_and_does_not_enter_again_whatever_the_rule(path: Path) -> None:
    book = TaskBook(path, SEEDS, a_config(novelty="off"))
    task = a_task("a", program="p")
    assert [book.add(version, [(version, task, 0.5)]) for version in (1, 2)] == [1, 0]
    assert book.sizes[TaskType.DEDUCTION] == 2


texts = st.text(max_size=20)


@given(
    st.builds(Task, st.sampled_from(TASK_TYPES), texts, st.tuples(texts), st.tuples(texts, texts), texts, texts),
    st.booleans(),
)
def test_a_task_survives_json(task: Task, composite: bool) -> None:
    task = dataclasses.replace(task, composite=composite)
    assert task_from_json(task_to_json(task)) == task


def test_a_task_written_before_there_were_composites_is_none() -> None:
    row = json.loads(task_to_json(a_task("a")))
    del row["composite"]
    assert task_from_json(json.dumps(row)) == a_task("a")


# -- components --------------------------------------------------------------------------------------------------


def test_components_are_distinct_programs_of_both_pair_types_and_no_composites(path: Path) -> None:
    book = TaskBook(path, [], Config())
    pair = [a_task(name, t) for name in "abc" for t in (TaskType.DEDUCTION, TaskType.ABDUCTION)]
    lone = [a_task("d", TaskType.ABDUCTION), a_task("e", TaskType.INDUCTION), a_task("f", TaskType.ERROR)]
    composite = dataclasses.replace(a_task("g"), composite=True)
    book.add(1, [(i, task, 0.5) for i, task in enumerate([*pair, *lone, composite])])
    for opened in (book, TaskBook(path, [], Config())):
        drawn = [opened.components(random.Random(i), 3) for i in range(60)]
        assert {task.program for tasks in drawn for task in tasks} == {a_task(name).program for name in "abcd"}
        assert {len({task.program for task in tasks}) for tasks in drawn} == {3}
        assert len(opened.components(random.Random(0), 9)) == 4
    assert TaskBook(path.with_name("new.sqlite"), [composite], Config()).components(random.Random(0), 1) == ()
