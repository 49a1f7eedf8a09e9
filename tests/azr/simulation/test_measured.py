"""Costs of a run folder that was written by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from actors.cost_sums import CostSums
from azr.simulation.costs import Costs, Responses
from azr.simulation.measured import measured
from azr.simulation.sweep import of_run
from common.config import AlgorithmConfig, Config
from common.types import Kind

DECODING = 5.0 - 6 * 0.125  # seconds that count, less pauses
CONFIG = Config(algorithm=AlgorithmConfig(proposals=1, solves=1, samples=2, solve_samples=1))


def a_run(folder: Path, costs: dict[str, float]) -> Path:
    """Nine steps, a second each, of which those from second 103 count; `costs` are reported in two halves."""
    figures = {
        "sequences": 8.0,
        "tokens": 50.0,
        "seconds": 0.5,
        "staleness/mean": 1.5,
        "push/stage": 0.25,
        "push/pause": 0.125,
        "propose/deduction/valid": 1 / 3,
        "propose/deduction/length_deviation": 3.0,
        "solve/deduction/accuracy": 0.75,
        "solve/deduction/length": 5.0,
        "solve/deduction/length_deviation": 0.0,
    }
    rows = [{"step": s, "time": 100.0 + s, **figures, "propose/deduction/length": 6.0 + 8 * (s % 2)} for s in range(9)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[3]]))
    halves = {key: value / 2 for key, value in costs.items()}
    events: list[dict[str, Any]] = [
        {"ph": "M", "name": "process_name", "args": {"name": "actor-0"}, "pid": 1},
        {"ph": "M", "name": "process_name", "args": {"name": "trainer-0"}, "pid": 2},
        _span("generate", 90.0, 30.0, 1),
        _span("train", 90.0, 15.0, 2),
        _span("snapshot", 105.0, 0.5, 2),
        _span("save", 105.5, 0.25, 2),
        _span("save", 105.75, 0.5, 2),  # the rest of the same
        _span("save", 107.0, 0.25, 2),
        *({"ph": "C", "name": "costs", "ts": at * 1e6, "args": halves, "pid": 1} for at in (104.0, 108.0)),
        *(
            {"ph": "C", "name": "tokens", "ts": (103.5 + i) * 1e6, "args": {"tokens": 200}, "pid": 1}
            for i in (-1, 0, 1)
        ),
        {"ph": "C", "name": "gpu 0", "ts": 104e6, "args": {"busy": 0.5, "memory": 1}, "pid": 1},
        {"ph": "C", "name": "costs", "ts": 102e6, "args": {"executor/seconds": 1e6}, "pid": 1},  # too early
    ]
    (folder / "trace.json").write_text(json.dumps(events) + "\n")
    return folder


def _span(state: str, begin: float, seconds: float, pid: int) -> dict[str, Any]:
    return {"ph": "X", "name": state, "ts": begin * 1e6, "dur": seconds * 1e6, "pid": pid}


def requests(before: float, *found: tuple[list[int], float, float]) -> dict[str, float]:
    """CostSums of (tokens of samples, seconds of a step, sequences), in an engine with that wait."""
    sums = CostSums()
    for lengths, step, running in found:
        seconds = before + step * max(lengths)
        sums.request(lengths, seconds, running)
        sums.ended("generate", seconds)
    area = sum(before + step * length for lengths, step, _ in found for length in lengths)
    return {**sums.drain(), "generate/area": area}


REST = {"executor": 10.0, "executor/seconds": 1.0, "episode": 5.0, "episode/seconds": 1e3}


def test_costs_of_a_run_by_hand(tmp_path: Path) -> None:
    """A decoding step takes 0.2 s whatever runs, after a wait of 2 s: two requests of one sample, three of two."""
    found = requests(2.0, *[([100], 0.2, 10)] * 2, *[([100, 20], 0.2, 10)] * 3)
    busy = found["generate/seconds"]
    costs = measured(a_run(tmp_path, {**found, **REST, "episode/seconds": busy + 1.0 + 2.0}), CONFIG)
    assert costs.kinds[Kind.PROPOSE_DEDUCTION].length == pytest.approx(10.0)  # 6 steps of both
    assert costs.kinds[Kind.PROPOSE_DEDUCTION].spread == pytest.approx(0.5)  # deviations 3 within and 4 between steps
    assert costs.kinds[Kind.PROPOSE_DEDUCTION].success == pytest.approx(1 / 3)
    assert costs.kinds[Kind.SOLVE_DEDUCTION] == Responses(5.0, 0.0, 0.75)
    assert set(costs.kinds) == {Kind.PROPOSE_DEDUCTION, Kind.SOLVE_DEDUCTION}
    assert (costs.stage, costs.pause, costs.step) == (0.25, 0.125, 0.0)
    assert [costs.prefill, costs.decode] == pytest.approx([2.0, 0.2])
    assert costs.step_token == pytest.approx((2.0 + 0.5) / (5 * (50 + 8 * costs.prompt_length)))
    assert costs.save == pytest.approx((0.75 + 0.25) / 2)
    assert costs.job == pytest.approx(2 * 0.1 / (1 + 0.1 * 2.0))  # 2 a second, 0.1 s each, 2 for a request
    assert costs.group == pytest.approx(0.4 / (1 + 0.4 * 1.0))
    assert of_run(tmp_path)["sequences_per_second"] == pytest.approx(8.0)
    assert of_run(tmp_path)["mean_staleness"] == pytest.approx(1.5)
    assert of_run(tmp_path)["actors"] == 1  # it was cut short and left no summary
    ledger = {"intake": {}, "actor-0": {"generate": 1.0}, "actor-1": {"generate": 1.0}}
    (tmp_path / "summary.json").write_text(json.dumps({"ledger": ledger}))
    assert of_run(tmp_path)["actors"] == 2


def test_a_decoding_step_is_latency_and_throughput(tmp_path: Path) -> None:
    """Shares of a step at the sequences that decoded: as fitted, none of them negative; alike, all is latency."""

    def of(*found: tuple[list[int], float, float]) -> Costs:
        return measured(a_run(tmp_path, {**requests(0.0, *found), **REST}), CONFIG)

    half = of(([100, 50], 0.2, 10), ([100, 50], 0.4, 30))  # 0.1 + 0.01 c
    step, tokens = 0.3, 300
    decoding = step * tokens / DECODING
    assert half.prefill == pytest.approx(0.0)
    assert half.decode + half.decode_each * decoding == pytest.approx(step)
    assert half.decode_each * decoding / step == pytest.approx(0.01 * 20 / 0.3)
    faster, alike = of(([100, 50], 0.5, 10), ([100, 50], 0.2, 20)), of(([100, 50], 0.5, 10), ([100, 50], 0.2, 10))
    assert faster.decode_each == alike.decode_each == 0.0 and faster.decode == alike.decode == pytest.approx(0.35)
    steep = of(([100, 50], 0.1, 10), ([100, 50], 0.5, 20))
    assert steep.decode == pytest.approx(0.0) and steep.decode_each > 0


def test_time_that_was_lost_with_requests_is_none_of_the_actor_itself(tmp_path: Path) -> None:
    found = requests(2.0, *[([100, 20], 0.2, 10)] * 3)
    busy = found["generate/seconds"]
    whole = measured(a_run(tmp_path, {**found, **REST, "episode/seconds": busy + 1.0 + 2.0}), CONFIG)
    lost = {"generate/lost": 7.0, "episode/seconds": busy + 7.0 + 1.0 + 2.0}
    assert measured(a_run(tmp_path, {**found, **REST, **lost}), CONFIG) == whole


def test_where_samples_are_alike_no_wait_can_be_told(tmp_path: Path) -> None:
    costs = measured(a_run(tmp_path, {**requests(1.0, ([10, 10], 0.1, 2)), **REST}), CONFIG)
    assert [costs.prefill, costs.decode] == pytest.approx([0.0, 0.2])
