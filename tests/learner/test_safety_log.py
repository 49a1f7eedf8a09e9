"""Flagged thoughts at the intake: on file, counted, and dealt with as `safety.on_flag` says."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from common import messages as m
from common.config import Config, SafetyConfig
from common.errors import PartFailed, WireError
from common.types import Flag, Group, Kind, Lease
from learner.safety_log import SafetyLog
from tests.fakes.groups import a_group, a_sample, a_task, fulfil
from tests.fakes.peers import Stage, small

P, S = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION
FLAGS = (Flag(1, "outsmarts", "solve this", "to outsmart people"), Flag(0, "deceives", "propose", "lie to people"))
Setter = Callable[..., Stage]


@pytest.fixture
async def stages(tmp_path: Path) -> AsyncIterator[Setter]:
    made: list[Stage] = []

    def make(on_flag: str, *held_out: str, config: Config | None = None) -> Stage:
        settings = dataclasses.replace(config or small(eta=0), safety=SafetyConfig(on_flag=on_flag))
        made.append(Stage(settings, tmp_path, [a_task(name) for name in held_out]))
        return made[-1]

    yield make
    for stage in made:
        await stage.crash()


def flagged() -> Group:
    samples = [a_sample(P, version=2), a_sample(S, version=4, prompt=1), a_sample(S, version=3, prompt=1)]
    return dataclasses.replace(a_group(8, P, samples, proposal=a_task("x"), solve_rate=0.5), flags=FLAGS)


def written(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "safety.jsonl").read_text().splitlines()]


# -- the log alone -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_flag", ["log", "drop", "stop"])
def test_every_flag_is_a_line(tmp_path: Path, on_flag: str) -> None:
    log = SafetyLog(tmp_path / "safety.jsonl", on_flag)
    log.take(flagged())
    rows = written(tmp_path)
    said = [(row["rule"], row["stream"], row["prompt"], row["response"]) for row in rows]
    assert said == [
        ("outsmarts", "solve/deduction", "solve this", "to outsmart people"),
        ("deceives", "propose/deduction", "propose", "lie to people"),
    ]
    group = {"kind": "propose/deduction", "lease": 8, "versions": [2, 4], "action": on_flag}
    assert all(row.items() >= group.items() for row in rows)
    assert all(row["time"] > 1.7e9 for row in rows)
    assert log.counts == {"outsmarts": 1, "deceives": 1}
    assert log.told == "2, last deceives in propose/deduction, version 4"


def test_no_flag_no_file(tmp_path: Path) -> None:
    group = dataclasses.replace(flagged(), flags=())
    assert SafetyLog(tmp_path / "safety.jsonl", "stop").take(group) is group
    assert not (tmp_path / "safety.jsonl").exists()


def test_log_changes_nothing(tmp_path: Path) -> None:
    log = SafetyLog(tmp_path / "safety.jsonl", "log")
    group = flagged()
    assert log.take(group) is group
    assert log.stopped(group) is None


@pytest.mark.parametrize("on_flag", ["drop", "stop"])
def test_a_dropped_group_is_kept_but_teaches_nothing(tmp_path: Path, on_flag: str) -> None:
    log = SafetyLog(tmp_path / "safety.jsonl", on_flag)
    group = flagged()
    taken = log.take(group)
    assert not any(sample.trainable for sample in taken.samples) and taken.proposal is None
    assert [s.reward for s in taken.samples] == [s.reward for s in group.samples]
    assert [s.status for s in taken.samples] == ["flagged", *(s.status for s in group.samples[1:])]
    assert (taken.lease, taken.solve_rate, taken.flags) == (group.lease, None, group.flags)


def test_only_stop_ends_the_run_and_says_what_to_read(tmp_path: Path) -> None:
    log = SafetyLog(tmp_path / "safety.jsonl", "stop")
    assert log.stopped(dataclasses.replace(flagged(), flags=())) is None
    error = log.stopped(flagged())
    assert error is not None and error.part == "safety"
    assert error.log == str(tmp_path / "safety.jsonl")
    assert "outsmarts, deceives" in error.what and "safety.on_flag" in error.hint


def test_a_resumed_run_adds_to_the_file(tmp_path: Path) -> None:
    for _ in range(2):
        log = SafetyLog(tmp_path / "safety.jsonl", "log")
        log.take(flagged())
    assert len(written(tmp_path)) == 4


# -- at the intake -----------------------------------------------------------------------------------------------


async def started(stage: Stage) -> list[Lease]:
    """The leases of the first batch."""
    await stage.begin(0)
    await stage.poll("trainer", 0, m.WantShare(0, 0))
    return await stage.lease()


async def deliver_all(stage: Stage, leases: list[Lease], suspect: Kind) -> None:
    for lease in leases:
        group = fulfil(lease)
        await stage.deliver(dataclasses.replace(group, flags=FLAGS[:1]) if lease.kind is suspect else group)


@pytest.mark.parametrize(("on_flag", "sequences", "tasks"), [("log", 3 * 3 + 3 * 2, 2), ("drop", 2 * 3 + 3 * 2, 1)])
async def test_a_flagged_proposal(stages: Setter, on_flag: str, sequences: int, tasks: int) -> None:
    stage = stages(on_flag)
    await deliver_all(stage, await started(stage), P)
    share = await stage.train(0)
    assert sum(len(micro.answer_lengths) for micro in share.micro_batches) == sequences
    assert stage.intake.book.sizes["deduction"] == tasks  # type: ignore[index]
    assert stage.intake.log.last["safety/flags"] == stage.intake.log.last["safety/outsmarts"] == 1
    assert str(stage.intake.status()["flags"]).startswith("1, last outsmarts in ")
    assert (await stage.close())["flags"] == {"outsmarts": 1}


async def test_the_same_group_sent_twice_is_one_thought(stages: Setter, tmp_path: Path) -> None:
    stage = stages("log")
    lease = (await started(stage))[0]
    group = dataclasses.replace(fulfil(lease), flags=FLAGS[:1])
    await stage.deliver(group)
    await stage.deliver(group)
    assert len(written(tmp_path)) == 1


async def test_a_dropped_group_comes_back_from_the_journal_dropped(stages: Setter) -> None:
    first = stages("drop", config=small(eta=0, save_every=1))
    await deliver_all(first, await started(first), P)
    await first.crash()
    groups = [g for batch in first.intake.journal.read().batches.values() for g in batch]
    (group,) = [group for group in groups if group.kind is P]
    assert group.proposal is None and not any(sample.trainable for sample in group.samples)


async def test_stop_ends_the_run_after_the_group_is_safe(stages: Setter, tmp_path: Path) -> None:
    stage = stages("stop")
    leases = await started(stage)
    suspect = next(lease for lease in leases if lease.kind is S)
    await stage.deliver(dataclasses.replace(fulfil(suspect), flags=FLAGS[:1]))
    await stage.settle()
    with pytest.raises(PartFailed, match=r"safety.*outsmarts"):
        stage.running.result()
    assert list(stage.intake.journal.read().waiting) == [suspect.id]
    assert [row["action"] for row in written(tmp_path)] == ["stop"]


async def test_answers_of_an_evaluation_are_looked_at(stages: Setter, tmp_path: Path) -> None:
    stage = stages("drop", "held out")
    leases = await started(stage)
    asked = next(lease for lease in leases if lease.kind is Kind.EVAL)
    await stage.deliver(dataclasses.replace(fulfil(asked), flags=(Flag(0, "deceives", "solve", "lie to people"),)))
    assert [(row["kind"], row["stream"]) for row in written(tmp_path)] == [("eval", "solve/deduction")]
    assert len(stage.intake.evaluation.rounds) == 1


async def test_a_flag_must_point_at_a_sample(stages: Setter) -> None:
    stage = stages("log")
    lease = next(lease for lease in await started(stage) if lease.kind is S)
    wrong = dataclasses.replace(fulfil(lease), flags=(Flag(2, "deceives", "", ""),))
    refused = await stage.poll("actor", 0, m.Deliver(wrong))
    with pytest.raises(WireError, match="flags a sample"):
        refused.result()
    assert not stage.intake.safety.counts
