"""What a run leaves for people: figures by hand, files that can be read after any end."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from common.config import AlgorithmConfig
from common.gpu_load import GpuLoad
from common.messages import Report
from common.push_span import PushSpan
from common.types import TASK_TYPES, Group, Kind, Span
from learner import trace
from learner.batch import sequences
from learner.evaluation import EvalSet, Question, Round
from learner.run_log import RunLog, batch_metrics, rejections, staleness_histogram
from tests.fakes.groups import a_group, a_sample, a_task

P, S = Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION
Opener = Callable[[], RunLog]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Opens the log of the run folder; `close` is the test's to call, as the end of a run is."""
    logs: list[RunLog] = []

    def make() -> RunLog:
        logs.append(RunLog(tmp_path))
        return logs[-1]

    yield make
    for log in logs:
        log.close()


def batch() -> list[Group]:
    return [
        a_group(0, P, [a_sample(P, version=4, length=2, reward=0.5), a_sample(S, version=4, length=4, correct=True)],
                solve_rate=0.5),
        a_group(8, P, [a_sample(P, version=5, length=6, reward=-1.0, status="format")]),
        a_group(16, P, [a_sample(P, version=5, length=1)], solve_rate=1.0),
        a_group(4, S, [a_sample(S, length=3, spans=[Span(3, 0, 1), Span(5, 1, 3)], reward=1.0),
                       a_sample(S, version=0, length=9, trainable=False)]),
    ]  # fmt: skip


def test_metrics_by_hand() -> None:
    rows = sequences(5, batch(), AlgorithmConfig(), 0).rows
    row = batch_metrics(5, batch(), rows)
    assert (row["groups"], row["sequences"], row["tokens"]) == (4, 5, 25)
    assert row["propose/deduction/reward"] == pytest.approx(-0.5 / 3)
    assert row["propose/deduction/valid"] == row["propose/deduction/format"] == pytest.approx(2 / 3)
    assert (row["propose/deduction/solve_rate"], row["propose/deduction/learnable"]) == (0.75, 0.5)
    assert row["solve/deduction/accuracy"] == pytest.approx(1 / 3)
    assert row["solve/deduction/length"] == pytest.approx(16 / 3)
    assert row["solve/deduction/length_deviation"] == pytest.approx((62 / 9) ** 0.5)  # of 4, 3 and 9
    assert "solve/induction/reward" not in row
    # trained tokens by age: 0: 6 + 1 + 2, 1: 2 + 4, 2: 1
    assert staleness_histogram(5, batch()) == Counter({0: 9, 1: 6, 2: 1})
    assert (row["staleness/max"], row["staleness/mean"]) == (2, 8 / 16)


def test_what_rejected_proposals_is_counted_by_rule() -> None:
    answer = a_sample(S, status="format")
    statuses = ["ok", "known", "known", "copy"]
    found = [a_group(8 * i, P, [a_sample(P, status=status), answer]) for i, status in enumerate(statuses)]
    row = batch_metrics(5, found, sequences(5, found, AlgorithmConfig(), 0).rows)
    assert {key: value for key, value in row.items() if "/rejected/" in key} == {
        "propose/deduction/rejected/known": 0.5,
        "propose/deduction/rejected/copy": 0.25,
    }
    assert rejections(sample for group in found for sample in group.samples) == {"known": 2, "copy": 1}


def test_the_summary_adds_up_the_run(tmp_path: Path, opened: Opener) -> None:
    log = opened()
    log.step({"step": 0, "sequences": 5, "loss": 0.25}, Counter({0: 10}))
    log.step({"step": 1, "sequences": 7, "loss": 0.5}, Counter({0: 5, 1: 2}))
    pushes = PushSpan("stage", 1, 5.0, 0.25, tokens=8), PushSpan("pause", 1, 6.0, 0.5)
    log.report(Report("actor-0", {"generate": 3.0, "idle": 1.0}, (), "idle", pushes=pushes, cpu={"process": 2.5}))
    result = Round(2, {Question(a_task(f"{i}", t)): i == 0 for t in TASK_TYPES for i in range(4)})
    log.evaluation(result)
    summary = log.summary({"version": 2}, [result])
    assert summary == json.loads((tmp_path / "summary.json").read_text())
    assert (summary["steps"], summary["sequences"], summary["version"]) == (2, 12, 2)
    assert summary["staleness"] == {"0": 15, "1": 2}
    assert summary["evaluation"] == [
        {"version": 2, "accuracy": dict.fromkeys(TASK_TYPES, 0.25), "asked": dict.fromkeys(TASK_TYPES, 4), "sets": {}}
    ]
    assert summary["cpu_seconds"] == {"actor-0": {"process": 2.5}}
    assert summary["push_costs"] == {
        "spreads": {
            "stage": {"count": 1, "p50": 0.25, "p99": 0.25, "max": 0.25},
            "pause": {"count": 1, "p50": 0.5, "p99": 0.5, "max": 0.5},
        },
        "decoding": 1,
        "tokens": 8,
    }
    assert summary["ledger"] == {"actor-0": {"generate": 0.75, "idle": 0.25}}
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [row.get("loss") for row in rows] == [0.25, 0.5, None]
    assert rows[2]["eval/deduction"] == 0.25


def test_what_a_part_used_is_that_of_all_its_lives(opened: Opener) -> None:
    log = opened()
    for cpu, ledger in (
        ({"process": 2.0, "zmq": 0.5}, {"generate": 3.0, "idle": 1.0}),
        ({"process": 5.0, "zmq": 0.75}, {"generate": 6.0, "idle": 2.0}),
        ({"process": 0.0, "zmq": 0.0}, {"start": 0.5}),  # started again
        ({"process": 1.0, "zmq": 0.25}, {"start": 1.0, "generate": 3.0}),
        ({"process": 0.5, "zmq": 0.0}, {"start": 5.0}),  # and again, slowly
    ):
        log.report(Report("actor-0", ledger, (), "idle", cpu=cpu))
    summary = log.summary({}, [])
    assert summary["cpu_seconds"] == {"actor-0": {"process": 6.5, "zmq": 1.0}}
    assert summary["ledger"] == {"actor-0": {"start": 6 / 17, "generate": 9 / 17, "idle": 2 / 17}}


def test_every_set_has_its_figures_and_every_answer_its_row(tmp_path: Path, opened: Opener) -> None:
    log = opened()
    task = a_task("one")
    for version, right in ((0, False), (3, True)):
        asked = {
            Question(task): True,
            Question(task, EvalSet.HARDER): right,
            Question(task, EvalSet.HARDER_FORCED): right,
        }
        log.evaluation(Round(version, asked))
    (*_, row) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    names = ("eval/deduction", "eval/harder/deduction", "eval/harder/forced/deduction", "eval/abduction")
    assert [row[name] for name in names] == [1.0, 1.0, 1.0, 0.0]
    assert "eval/forced/deduction" not in row
    answers = [json.loads(line) for line in (tmp_path / "evaluation.jsonl").read_text().splitlines()]
    assert [(a["version"], a["set"], a["right"]) for a in answers] == [
        (0, "standard", True), (0, "harder", False), (0, "harder/forced", False),
        (3, "standard", True), (3, "harder", True), (3, "harder/forced", True),
    ]  # fmt: skip
    assert {(a["type"], a["key"]) for a in answers} == {("deduction", task.key)}
    (figures,) = log.summary({}, [Round(0, {Question(task, EvalSet.HARDER): True})])["evaluation"]
    assert (figures["asked"]["deduction"], figures["sets"]["harder"]["accuracy"]["deduction"]) == (0, 1.0)


def spans(part: str, *spans: tuple[str, float, float], produced: tuple[tuple[float, int], ...] = ()) -> Report:
    return Report(part, {}, spans, spans[-1][0], produced)


def test_overlap_counts_steps_in_which_tokens_came(tmp_path: Path, opened: Opener) -> None:
    log = opened()
    log.report(spans("trainer-0", ("train", 1.0, 2.0), ("wait-batch", 2.0, 3.0), ("train", 3.0, 4.0)))
    log.report(spans("trainer-0", ("train", 4.0, 5.0)))  # the step before, reported in two pieces
    log.report(spans("trainer-1", ("train", 6.0, 7.0)))
    log.report(spans("actor-0", ("generate", 0.0, 9.0), produced=((2.5, 10), (4.5, 3), (1.5, 0))))
    assert log.summary({}, [])["overlap"] == {"steps": 2, "with_tokens": 1}


def test_the_trace_tells_where_ledgers_begin_what_gpus_did_and_what_steps_waited_for(
    tmp_path: Path, opened: Opener
) -> None:
    log = opened()
    state = ("generate", 1.0, 2.0)
    log.report(Report("actor-0", {"generate": 1.0}, (state,), gpus=(GpuLoad(1.5, 3, 0.25, 7),)))
    log.report(Report("actor-0", {"generate": 2.0}, (("generate", 2.0, 3.0),), costs={"executor": 2.0}))
    log.report(Report("actor-0", {"idle": 0.5}, (("idle", 9.0, 9.5),)))  # started again
    log.mark("batch", step=0, actor=2)
    log.step({"step": 0}, Counter())  # what a step leaves is on disk
    events = trace.read(tmp_path / "trace.json")
    assert [e["ts"] for e in events if e["name"] == trace.BEGIN] == [1e6, 9e6]
    (load,) = [e for e in events if e["name"] == "gpu 3"]
    assert (load["ph"], load["ts"], load["args"]) == ("C", 1.5e6, {"busy": 0.25, "memory": 7})
    assert [e["args"] for e in events if e["name"] == trace.COSTS] == [{"executor": 2.0}]
    (intake,) = [e["pid"] for e in events if e["ph"] == "M" and e["args"]["name"] == trace.INTAKE]
    marks = [(e["name"], e["args"]) for e in events if e["pid"] == intake and e["ph"] == "i"]
    assert marks == [("batch", {"step": 0, "actor": 2}), ("step", {"step": 0})]


def test_a_trace_can_be_read_wherever_it_was_cut(tmp_path: Path, opened: Opener) -> None:
    log = opened()
    log.report(spans("trainer-0", ("train", 1.0, 2.0), ("wait-batch", 2.0, 3.0)))
    log.summary({}, [])  # flushes
    whole = (tmp_path / "trace.json").read_text()
    cut = tmp_path / "cut.json"
    counts = []
    for size in range(2, len(whole) + 1):
        cut.write_text(whole[:size])
        counts.append(len(trace.read(cut)))
    assert sorted(set(counts)) == [0, 1, 2, 3, 4]  # a name, a begin, two states
    assert counts == sorted(counts)


@pytest.mark.parametrize("lost", [0, 1, 2, 5, 40, 10_000])
def test_a_trace_goes_on_after_any_end(tmp_path: Path, opened: Opener, lost: int) -> None:
    first = RunLog(tmp_path)
    first.report(spans("trainer-0", ("train", 1.0, 2.0)))
    first.close()
    path = tmp_path / "trace.json"
    path.write_text(path.read_text()[: -lost or None])
    second = opened()
    second.report(spans("actor-0", ("idle", 3.0, 4.0)))
    second.report(spans("trainer-0", ("train", 5.0, 6.0)))
    second.summary({}, [])
    events = trace.read(path)
    pids = {event["args"]["name"]: event["pid"] for event in events if event["ph"] == "M"}
    assert set(pids) == {"actor-0", "trainer-0"}
    assert len(set(pids.values())) == 2
    assert [e["pid"] for e in events if e["ph"] == "X"][-2:] == [pids["actor-0"], pids["trainer-0"]]
