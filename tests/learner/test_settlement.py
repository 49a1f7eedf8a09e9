"""Settlement: copies are found in lease order, whatever was known when; the same again after any crash."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors import rewards
from common.config import AlgorithmConfig, Config, EnvironmentConfig
from common.types import Group, Kind, Sample, Task, TaskType, propose, solve
from learner.leases import lease_id
from learner.settlement import COPY_REWARD, settle
from learner.task_book import TaskBook
from tests.fakes.groups import a_group, a_sample, a_task

P, S = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION


def a_config(novelty: str = "program", *, admit: str = "all", train_propose: bool = True, warmup: int = 0) -> Config:
    return Config(
        environment=EnvironmentConfig(novelty=novelty),
        algorithm=AlgorithmConfig(admit=admit, train_propose=train_propose, warmup=warmup),
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


def test_a_copy_is_paid_like_a_wrong_proposal_and_its_answers_are_honest(path: Path) -> None:
    config = a_config()
    group = proposing(1, a_task("b", program="p"))
    _, copy = settle(0, [proposing(0, a_task("a", program="p")), group], config, TaskBook(path, [], config), ())
    assert (first(copy).reward, first(copy).correct, first(copy).trainable) == (COPY_REWARD, False, True)
    assert COPY_REWARD == rewards.WRONG
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
    config = a_config()
    book = TaskBook(path, [], config)
    earlier = [[proposing(0, a_task("a", program="p"))], [proposing(1, a_task("b", program="q"))]]
    batch = [proposing(2, a_task("c", program="p")), proposing(3, a_task("d", program="q"))]
    assert said(settle(2, batch, config, book, earlier)) == ["known", "known"]
    book.add_batch(1, earlier[0])
    assert said(settle(2, batch, config, book, earlier[1:])) == ["known", "known"]
    assert said(settle(2, batch, config, book, ())) == ["known", "ok"]


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
