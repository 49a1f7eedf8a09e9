"""Where time went, by hand: a trainer that waits for an actor, a push, an evaluation, and nobody."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.cli import FAILED, MISUSED, main
from azr.critical_path import critical_path
from azr.report import report
from azr.timeline import Gpu, of, read
from common.config import Config, to_yaml
from common.errors import ConfigError
from common.gpu_load import GpuLoad
from common.learner import LearnerConfig
from common.messages import Report
from common.push_span import PushSpan
from learner import trace
from learner.run_log import RunLog

Events = list[dict[str, Any]]
PIDS = {"intake": 1, "trainer-0": 2, "actor-0": 3, "actor-1": 4}
NAMES: Events = [{"ph": "M", "pid": pid, "args": {"name": name}} for name, pid in PIDS.items()]


def states(part: str, begin: float, *pieces: tuple[str, float]) -> Events:
    """One state after the other, each for so many seconds."""
    events: Events = [{"ph": "i", "name": trace.BEGIN, "pid": PIDS[part], "ts": begin * 1e6}]
    for state, seconds in pieces:
        events.append({"ph": "X", "name": state, "pid": PIDS[part], "ts": begin * 1e6, "dur": seconds * 1e6})
        begin += seconds
    return events


def mark(at: float, name: str, **args: int) -> dict[str, Any]:
    return {"ph": "i", "name": name, "pid": PIDS["intake"], "ts": at * 1e6, "args": args}


def path_of(events: Sequence[dict[str, Any]], exact: int | None = None) -> dict[tuple[str, str], tuple[Any, int]]:
    found = critical_path(of([*NAMES, *events]), exact)
    assert found is not None
    assert sum(s.seconds for s in found.stretches) == pytest.approx(found.seconds)
    return {(s.part, s.state): (pytest.approx(s.seconds), s.steps) for s in found.stretches}


def test_a_wait_for_a_batch_is_that_of_the_actor_who_brought_the_last_group() -> None:
    events = [
        *states("trainer-0", 0.0, ("wait-batch", 4.0), ("train", 2.0), ("snapshot", 0.5), ("wait-batch", 1.5)),
        *states("actor-0", 0.0, ("generate", 9.0)),
        *states("actor-1", 1.0, ("wait-lease", 1.0), ("generate", 1.5), ("wait-executor", 0.25), ("idle", 5.25)),
        mark(3.75, "batch", step=0, actor=1),
        mark(6.5, "step", step=0),
    ]
    assert path_of(events) == {
        ("trainer-0", "train"): (2.0, 1),
        ("trainer-0", "snapshot"): (0.5, 1),
        ("actor-1", "unknown"): (1.0, 1),  # its ledger begins a second after the wait
        ("actor-1", "wait-lease"): (1.0, 1),
        ("actor-1", "generate"): (1.5, 1),
        ("actor-1", "wait-executor"): (0.25, 1),
        ("intake", "answer"): (0.25, 1),
        ("run", "not over"): (1.5, 0),
    }


def test_a_wait_for_a_version_is_that_of_the_push() -> None:
    events = [
        *states("trainer-0", 0.0, ("train", 1.0), ("wait-batch", 3.0), ("train", 1.0)),
        *states("actor-0", 0.0, ("generate", 2.0), ("weight-pause", 1.5), ("generate", 2.0)),
        *states("actor-1", 0.0, ("generate", 3.0), ("weight-pause", 0.5), ("generate", 2.0)),
        mark(0.5, "batch", step=1, actor=0),
        mark(1.0, "step", step=0),
        mark(3.75, "version", version=1, held=0),
        mark(5.0, "step", step=1),
    ]
    assert path_of(events) == {
        ("trainer-0", "train"): (2.0, 2),
        ("actor-0", "weight-pause"): (1.5, 1),
        ("push", "stage"): (1.25, 1),
        ("intake", "answer"): (0.25, 1),
    }


def test_with_exact_staleness_a_push_begins_when_its_batch_is_formed() -> None:
    """At η = 1 batch 1 has to be sampled by version 0 before version 1 goes out."""
    events = [
        *states("trainer-0", 0.0, ("train", 1.0), ("wait-batch", 3.0), ("train", 1.0)),
        *states("actor-0", 0.0, ("generate", 3.25), ("weight-pause", 0.5), ("generate", 2.0)),
        mark(1.0, "step", step=0),
        mark(3.0, "batch", step=1, actor=0),
        mark(4.0, "version", version=1, held=0),
        mark(5.0, "step", step=1),
    ]
    both = {("trainer-0", "train"): (2.0, 2), ("actor-0", "weight-pause"): (0.5, 1)}
    assert path_of(events) == {**both, ("push", "stage"): (2.5, 1)}
    assert path_of(events, exact=1) == {**both, ("push", "stage"): (0.5, 1), ("actor-0", "generate"): (2.0, 1)}
    assert path_of(events, exact=0) == path_of(events)


def test_with_exact_staleness_a_step_that_saves_waits_for_what_its_version_samples() -> None:
    events = [
        *states("trainer-0", 0.0, ("wait-batch", 3.0), ("train", 1.0)),
        *states("actor-0", 0.0, ("weight-pause", 0.5), ("generate", 4.0)),
        mark(0.5, "version", version=1, held=0),
        mark(2.75, "batch", step=2, actor=0),
        mark(4.0, "step", step=1),
    ]
    ours = {("trainer-0", "train"): (1.0, 1), ("actor-0", "weight-pause"): (0.5, 1)}
    assert path_of(events, exact=1) == {**ours, ("actor-0", "generate"): (2.25, 1), ("intake", "answer"): (0.25, 1)}
    assert path_of(events) == {**ours, ("intake", "answer"): (2.5, 1)}


def test_with_exact_staleness_an_evaluation_keeps_the_push_that_follows_it_waiting() -> None:
    events = [
        mark(0.0, "version", version=0, held=1),
        *states("trainer-0", 0.0, ("train", 1.0), ("wait-batch", 3.0)),
        mark(0.25, "batch", step=1, actor=0),
        mark(1.0, "step", step=0),
        mark(3.0, "evaluated", version=0),
        mark(4.0, "version", version=1, held=0),
        mark(5.0, "step", step=1),
    ]
    train = {("trainer-0", "train"): (1.0, 1)}
    assert path_of(events, exact=1) == {**train, ("evaluation", "round"): (2.0, 1), ("push", "stage"): (1.0, 1)}


def test_a_wait_for_an_evaluation_begins_with_it() -> None:
    events = [
        mark(0.0, "version", version=0, held=1),
        *states("trainer-0", 0.0, ("wait-batch", 1.0), ("train", 1.0), ("wait-batch", 3.0), ("train", 1.0)),
        *states("actor-0", 0.0, ("generate", 6.0)),
        mark(1.0, "batch", step=0, actor=0),
        mark(1.5, "batch", step=1, actor=0),
        mark(2.0, "step", step=0),
        mark(5.0, "evaluated", version=0),
        mark(6.0, "step", step=1),
    ]
    assert path_of(events) == {
        ("trainer-0", "train"): (2.0, 2),
        ("actor-0", "generate"): (1.0, 1),  # step 0 may be trained while version 0 is evaluated
        ("evaluation", "round"): (3.0, 1),
    }


def test_what_came_before_the_evaluation_has_its_own_cause() -> None:
    events = [
        *states("trainer-0", 0.0, ("train", 1.0), ("wait-batch", 5.0)),
        *states("actor-0", 0.0, ("generate", 2.0), ("weight-pause", 1.0), ("generate", 3.0)),
        mark(1.0, "step", step=0),
        mark(3.0, "version", version=1, held=1),
        mark(6.0, "evaluated", version=1),
    ]
    assert path_of(events) == {
        ("trainer-0", "train"): (1.0, 1),
        ("evaluation", "round"): (3.0, 0),
        ("actor-0", "weight-pause"): (1.0, 0),
        ("push", "stage"): (1.0, 0),
    }


def test_a_batch_of_the_journal_is_nobodys_work() -> None:
    events = [*states("trainer-0", 0.0, ("wait-batch", 1.0)), mark(1.0, "batch", step=0, actor=-1)]
    assert path_of([*events, mark(2.0, "step", step=0)]) == {("intake", "batch of the journal"): (1.0, 1)}


def test_without_a_trainer_there_is_no_path() -> None:
    assert critical_path(of([*NAMES, *states("actor-0", 0.0, ("idle", 1.0))])) is None


def test_states_are_summed_and_a_restart_is_no_lost_time() -> None:
    first = states("actor-0", 100.0, ("idle", 1.0), ("idle", 1.0), ("generate", 2.0))
    timeline = of([*NAMES, *first, *states("actor-0", 900.0, ("generate", 4.0))])
    (actor,) = timeline.processes
    assert (len(actor.lives), len(actor.lives[0])) == (2, 2)
    assert (actor.wall, actor.states, actor.residue) == (8.0, {"generate": 6.0, "idle": 2.0}, 0.0)


@pytest.mark.parametrize(("second", "residue"), [(3.0, -0.25), (1.0, 0.5)])
def test_what_is_lost_or_told_twice_is_a_residue(second: float, residue: float) -> None:
    told = states("actor-0", 0.0, ("generate", 2.0)) + states("actor-0", second, ("idle", 1.0))[1:]
    (actor,) = of([*NAMES, *told]).processes
    assert actor.residue == pytest.approx(residue)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.01, 50.0)), min_size=1, max_size=40))
def test_states_that_follow_each_other_sum_to_wall_time(pieces: list[tuple[str, float]]) -> None:
    (actor,) = of([*NAMES, *states("actor-0", 1.7e9, *pieces)]).processes
    assert abs(actor.residue) < 1e-4


PUSHES = (
    PushSpan("stage", 1, 11.0, 0.25, tokens=9),
    PushSpan("stage", 2, 12.0, 0.5),
    PushSpan("pause", 1, 12.5, 0.125),
)


def a_run(folder: Path, *, lost: float = 0.0) -> Path:
    """What a run of 3 steps leaves when it has trained one; `lost`: seconds of the actor that no report told."""
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(Config(learner=LearnerConfig(steps=3))))
    log = RunLog(folder)
    log.report(Report("trainer-0", {"train": 1.0}, (("train", 10.0, 11.0),)))
    log.report(
        Report("actor-0", {"generate": 1.0}, (("generate", 10.0, 11.0),), gpus=(GpuLoad(10.0, 0, 0.25, 1 << 30),))
    )
    begin = 11.0 + lost
    log.report(
        Report(
            "actor-0",
            {"generate": 4.0},
            (("generate", begin, 14.0 + lost),),
            gpus=(GpuLoad(11.0, 0, 0.75, 0),),
            pushes=PUSHES,
        )
    )
    log.step({"step": 0, "groups": 6, "sequences": 30}, Counter())
    log.close()
    return folder


def test_a_report_of_a_run_that_goes_on(tmp_path: Path) -> None:
    text, sound = report(a_run(tmp_path / "run"))
    assert sound
    rows = [line.split() for line in text.splitlines()]
    assert ["actor-0", "4.0", "+0.00%", "generate", "100.0%"] in rows
    assert "1 of 3 steps; not over, or ended without a summary" in text
    assert ["1.00", "100.0%", "1", "trainer-0", "train"] in rows
    assert ["actor-0", "gpu", "0", "50.0%", "1.0"] in rows
    assert read(tmp_path / "run").pushes == PUSHES
    assert ["stage", "2", "250.0", "500.0", "500.0"] in rows and ["pause", "1", "125.0", "125.0", "125.0"] in rows
    assert "9 tokens were decoded while staging, in 1 of 2 stages" in text
    assert read(tmp_path / "run").gpus == (Gpu("actor-0", "gpu 0", 2, 0.5, 1 << 30),)


def test_a_ledger_with_holes_is_told_and_is_an_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(a_run(tmp_path / "run", lost=0.06))]) == FAILED
    assert "BROKEN: 1.5% of the time of actor-0 is missing from its ledger" in capsys.readouterr().out
    assert main(["report", str(a_run(tmp_path / "other", lost=0.02))]) == 0
    assert "within 1%" in capsys.readouterr().out


def test_a_finished_run_is_told_with_its_figures(tmp_path: Path) -> None:
    folder = a_run(tmp_path / "run")
    (folder / "summary.json").write_text(json.dumps({"seconds": 12.0, "sequences": 30, "sequences_per_second": 2.5}))
    assert "1 of 3 steps; 12.0 s, 30 sequences, 2.5 a second" in report(folder)[0]
    cpu = {"trainer-0": {"process": 20.0, "thread": 0.125, "zmq": 0.025}}
    summary = {"seconds": 12.0, "sequences": 30, "sequences_per_second": 2.5, "cpu_seconds": cpu}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert ["trainer-0", "20.00", "0.15", "0.75%"] in [line.split() for line in report(folder)[0].splitlines()]


def test_a_run_that_has_just_begun_has_no_figures(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(to_yaml(Config()))
    (tmp_path / "trace.json").write_text("[\n")
    text, sound = report(tmp_path)
    assert sound and text.endswith("no process has reported yet")


def test_what_is_no_run_is_said_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=r"no config\.yaml"):
        report(tmp_path)
    (tmp_path / "config.yaml").write_text(to_yaml(Config()))
    with pytest.raises(ConfigError, match=r"no trace\.json"):
        report(tmp_path)
    (tmp_path / "trace.json").write_text('[\n{"ph": "X",\n]\n')
    assert main(["report", str(tmp_path)]) == MISUSED
    assert "trace.json is damaged" in capsys.readouterr().err
