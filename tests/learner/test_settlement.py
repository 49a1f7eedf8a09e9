"""Settlement: copies are found in lease order, whatever was known when; the same again after any crash."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import AlgorithmConfig, Config, EnvironmentConfig, IntrinsicConfig
from common.types import Group, Kind, Sample, Task, TaskType, propose, solve
from learner import program as figures
from learner.leases import lease_id
from learner.settlement import rebuild, settle
from learner.task_book import TaskBook
from tests.fakes.groups import a_group, a_sample, a_task

P, S = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION
OFF = IntrinsicConfig()


def a_config(
    novelty: str = "program",
    *,
    admit: str = "all",
    train_propose: bool = True,
    warmup: int = 0,
    invalid: float = -0.5,
    intrinsic: IntrinsicConfig = OFF,
) -> Config:
    return Config(
        environment=EnvironmentConfig(novelty=novelty),
        algorithm=AlgorithmConfig(admit=admit, train_propose=train_propose, warmup=warmup, invalid_reward=invalid),
        intrinsic=intrinsic,
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.sqlite"


def proposing(number: int, task: Task, rate: float = 0.5) -> Group:
    """A valid proposal with two answers to it."""
    kind = propose(task.type)
    samples = [a_sample(kind, reward=0.5, correct=True), *(a_sample(solve(task.type), prompt=1) for _ in range(2))]
    return a_group(lease_id(kind, number), kind, samples, proposal=task, solve_rate=rate)


def said(batch: Sequence[Group]) -> list[str]:
    return [group.samples[0].status for group in batch]


def first(group: Group) -> Sample:
    return group.samples[0]


def test_the_second_of_a_program_is_a_copy_in_lease_order(path: Path) -> None:
    config = a_config()
    batch = [
        proposing(0, a_task("a", program="p")),
        proposing(1, a_task("b", program="p")),
        proposing(2, a_task("c", program="q")),
        proposing(3, a_task("a", TaskType.ABDUCTION, program="p")),
        a_group(lease_id(S, 0), S, [a_sample(S)]),
    ]
    settled = settle(0, batch, config, TaskBook(path, [], config), ())
    assert said(settled) == ["ok", "copy", "ok", "ok", "ok"]
    assert [group.proposal is None for group in settled] == [False, True, False, False, True]
    assert [settled[i] for i in (0, 2, 3, 4)] == [batch[i] for i in (0, 2, 3, 4)]


@pytest.mark.parametrize("invalid", [-0.5, -1.0])
def test_a_copy_is_paid_like_an_invalid_proposal_and_its_answers_are_honest(path: Path, invalid: float) -> None:
    config = a_config(invalid=invalid)
    group = proposing(1, a_task("b", program="p"))
    _, copy = settle(0, [proposing(0, a_task("a", program="p")), group], config, TaskBook(path, [], config), ())
    assert (first(copy).reward, first(copy).correct, first(copy).trainable) == (invalid, False, True)
    assert copy.samples[1:] == group.samples[1:]
    assert (copy.lease, copy.prompts, copy.solve_rate) == (group.lease, group.prompts, group.solve_rate)


@pytest.mark.parametrize(
    ("rule", "statuses"),
    [("program", ["ok", "copy", "copy"]), ("task", ["ok", "ok", "copy"]), ("off", ["ok", "ok", "ok"])],
)
def test_what_the_rule_calls_a_copy(path: Path, rule: str, statuses: list[str]) -> None:
    config = a_config(rule)
    batch = [proposing(i, a_task(name, program="p")) for i, name in enumerate("abb")]
    assert said(settle(0, batch, config, TaskBook(path, [], config), ())) == statuses


def test_what_came_before_the_batch_is_known_wherever_it_is_on_its_way(path: Path) -> None:
    config = a_config(invalid=-0.75)
    book = TaskBook(path, [], config)
    earlier = [[proposing(0, a_task("a", program="p"))], [proposing(1, a_task("b", program="q"))]]
    batch = [proposing(2, a_task("c", program="p")), proposing(3, a_task("d", program="q"))]
    assert said(settle(2, batch, config, book, earlier)) == ["known", "known"]
    book.add_batch(1, earlier[0])
    assert said(settle(2, batch, config, book, earlier[1:])) == ["known", "known"]
    known, new = settle(2, batch, config, book, ())
    assert said([known, new]) == ["known", "ok"]
    assert (first(known).reward, new) == (-0.75, batch[1])


def test_a_task_that_will_not_enter_the_book_makes_no_copy_of_a_later_batch(path: Path) -> None:
    config = a_config(admit="learnable")
    ahead = [proposing(0, a_task("a", program="p"), rate=1.0), proposing(1, a_task("b", program="q"), rate=0.5)]
    batch = [proposing(2, a_task("c", program="p")), proposing(3, a_task("d", program="q"))]
    assert said(settle(1, batch, config, TaskBook(path, [], config), [ahead])) == ["ok", "known"]


@pytest.mark.parametrize(("train_propose", "warmup", "step"), [(False, 0, 9), (True, 3, 2)])
def test_proposals_that_are_not_trained(path: Path, train_propose: bool, warmup: int, step: int) -> None:
    config = a_config(train_propose=train_propose, warmup=warmup)
    batch = [proposing(0, a_task("a", program="p")), a_group(lease_id(S, 0), S, [a_sample(S)])]
    proposal, solved = settle(step, batch, config, TaskBook(path, [], config), ())
    assert [sample.trainable for sample in proposal.samples] == [False, True, True]
    assert [sample.trainable for sample in solved.samples] == [True]
    assert (proposal.proposal, first(proposal).reward) == (a_task("a", program="p"), 0.5)


def test_after_the_warm_up_proposals_are_trained(path: Path) -> None:
    config = a_config(warmup=3)
    (group,) = settle(3, [proposing(0, a_task("a"))], config, TaskBook(path, [], config), ())
    assert all(sample.trainable for sample in group.samples)


programs = st.lists(st.lists(st.sampled_from("pqrst"), max_size=5), max_size=5)


@given(programs, st.data())
def test_it_does_not_matter_when_batches_enter_the_book_or_are_settled_again(
    batches: list[list[str]], data: st.DataObject
) -> None:
    """Each program is kept once, the first time, whatever part of the batches before is in the book already."""
    config = a_config()
    book = TaskBook(Path(":memory:"), [], config)
    settled: list[list[Group]] = []
    entered = number = 0
    kept: list[str] = []
    for step, wanted in enumerate(batches):
        batch = []
        for program in wanted:
            batch.append(proposing(number, a_task(f"{number}", program=program)))
            number += 1
        while entered < step and data.draw(st.booleans()):
            book.add_batch(entered + 1, settled[entered])
            entered += 1
        settled.append(settle(step, batch, config, book, settled[entered:]))
        again = settle(step, settled[-1], config, book, settled[entered:step])
        assert again == settled[-1]
        kept += [group.proposal.program_key for group in settled[-1] if group.proposal is not None]
    assert kept == list(dict.fromkeys(program for wanted in batches for program in wanted))


# -- intrinsic rewards -------------------------------------------------------------------------------------------

DIVERSE = IntrinsicConfig(answer_diversity=1.0, limit=1.0)
DISTANT = IntrinsicConfig(edit_distance=1.0, limit=1.0)
SHORT, LONG = "def f(a):\n return a", "def f(a):\n for b in a:\n  a = a + [b]\n return a"


def answering(number: int, output: str, rate: float = 0.5, *references: str) -> Group:
    """A deduction task of its own whose answer is `output`."""
    group = proposing(number, dataclasses.replace(a_task(f"{number}", program=f"{number}"), outputs=(output,)), rate)
    return dataclasses.replace(group, references=references)


def paid(batch: Sequence[Group]) -> list[float]:
    return [first(group).reward for group in batch]


@pytest.mark.parametrize(
    ("combine", "reward"),
    [("sum", 0.75 + 0.5), ("multiply", 0.75 * 0.5), ("sum_multiply", 1.25), ("multiply_sum", 0.375)],
)
def test_a_learnable_proposal_is_paid_its_intrinsic_terms(path: Path, combine: str, reward: float) -> None:
    config = a_config(intrinsic=dataclasses.replace(DIVERSE, combine=combine))
    book = TaskBook(path, [dataclasses.replace(a_task(output), outputs=(output,)) for output in "12"], config)
    proposed = answering(0, "1", 0.25)
    (group,) = settle(0, [proposed], config, book, ())
    assert first(group).reward == reward  # 1 of 2 answers in the book is 1
    assert group.samples[1:] == proposed.samples[1:]
    solving = a_group(lease_id(S, 0), S, [a_sample(S, reward=1.0)])
    assert settle(0, [solving], config, book, ()) == [solving]


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_what_is_not_learnable_is_paid_no_more(path: Path, rate: float) -> None:
    config = a_config(intrinsic=DIVERSE)
    group = answering(0, "1", rate)
    assert settle(0, [group], config, TaskBook(path, [], config), ()) == [group]


def test_copies_are_paid_as_copies(path: Path) -> None:
    config = a_config(intrinsic=DIVERSE)
    batch = [proposing(0, a_task("a", program="p")), proposing(1, a_task("b", program="p"))]
    assert paid(settle(0, batch, config, TaskBook(path, [], config), ())) == [1.5, -0.5]


def test_counts_are_those_before_the_batch(path: Path) -> None:
    """The book, what is on its way into it, and nothing of the batch itself or that will not enter."""
    config = a_config(admit="unsolved", intrinsic=DIVERSE)
    book = TaskBook(path, [dataclasses.replace(a_task("a"), outputs=("1",))], config)
    ahead = [[answering(0, "1"), answering(1, "2", 1.0)], [answering(2, "2"), answering(3, "3")]]
    batch = [answering(4, "1"), answering(5, "1"), answering(6, "2"), answering(7, "9")]
    expected = [0.5 + 1 - 2 / 4] * 2 + [0.5 + 1 - 1 / 4, 1.5]
    assert paid(settle(2, batch, config, book, ahead)) == pytest.approx(expected)
    book.add_batch(1, ahead[0])
    assert paid(settle(2, batch, config, book, ahead[1:])) == pytest.approx(expected)
    book.add_batch(2, ahead[1])
    assert paid(settle(2, batch, config, book, ())) == pytest.approx(expected)


def test_distance_is_to_what_the_proposer_was_shown(path: Path) -> None:
    config = a_config(intrinsic=DISTANT)
    same, other = (dataclasses.replace(a_task(n), program=text) for n, text in (("a", SHORT), ("b", LONG)))
    book = TaskBook(path, [same, other], config)

    def reward(*references: str, ahead: Sequence[Sequence[Group]] = ()) -> float:
        task = dataclasses.replace(a_task("c", program="c"), program=SHORT)
        group = dataclasses.replace(proposing(1, task), references=references)
        return paid(settle(1, [group], config, book, ahead, figures))[0]

    assert reward(same.key) == 0.5
    assert (far := reward(other.key)) > 0.5
    assert reward(same.key, other.key) == pytest.approx((0.5 + far) / 2)
    assert reward() == reward("gone") == 0.5
    coming = dataclasses.replace(other, key="deduction:d", program_key="d")
    assert reward(coming.key, ahead=[[proposing(0, coming)]]) == far
    book.add_batch(1, [proposing(0, coming)])
    assert reward(coming.key) == far


outcomes = st.tuples(st.sampled_from("1234"), st.sampled_from([0.0, 0.5, 1.0]))


@given(st.lists(st.lists(outcomes, max_size=4), max_size=4))
def test_settled_again_or_rebuilt_a_batch_is_paid_the_same(batches: list[list[tuple[str, float]]]) -> None:
    """Whether the journal holds a batch as it came or as it was settled."""
    terms = IntrinsicConfig(answer_diversity=0.7, hierarchical=True, halstead=0.1)
    config = a_config(admit="unsolved", intrinsic=terms)
    book = TaskBook(Path(":memory:"), [dataclasses.replace(a_task("a"), outputs=("1",))], config)
    raw = [[answering(10 * i + j, *row) for j, row in enumerate(batch)] for i, batch in enumerate(batches)]
    settled: list[list[Group]] = []
    for step, batch in enumerate(raw):
        settled.append(settle(step, batch, config, book, settled, figures))
        assert paid(settle(step, settled[-1], config, book, settled[:-1], figures)) == paid(settled[-1])
    after = [answering(99, "1"), answering(100, "2")]
    expected = paid(settle(len(raw), after, config, book, settled, figures))
    for held in (raw, settled):
        rebuild(book, len(raw), dict(enumerate(held)), config, figures)
        assert paid(settle(len(raw), after, config, book, (), figures)) == expected
