"""What checks conclude from what they read, on results written by hand."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from azr.experiments.gpu import check_push, check_run
from azr.experiments.gpu.claims import Record
from azr.experiments.gpu.pushes import Way
from azr.experiments.gpu.rank import difference
from azr.experiments.gpu.whole_run import Run

DIGESTS = ["a", "b", "c", "d", "e"]


def pushed(**changes: Any) -> dict[str, Any]:
    """Five versions, the first slow; log-probs differ by 0.01 and move by 1."""
    pushes = [
        {
            "version": version,
            "probe_difference": 0.01,
            "sent": 100,
            "whole": 100,
            "stage": 0.3,
            "pauses": [5.0 if version == 0 else 0.06],
            "loads": [0.04],
        }
        for version in range(5)
    ]
    seams = {"seams": 4, "own": 0.01, "worst": 0.04, "other": 0.8}
    return {"moves": [1.0, 1.2, 1.1, 1.3], "digests": DIGESTS, "pushes": pushes, "seams": seams, **changes}


def conclude(found: dict[str, Any], *ways: Way, on_gpu: bool = True) -> dict[str, bool | None]:
    record = Record("push", "cuda")
    check_push.judged(record, list(ways), found, on_gpu=on_gpu)
    return {claim.what: claim.held for claim in record.claims}


GLOO, IPC, DELTA = Way("gloo", False), Way("ipc", False), Way("nccl", True)


def test_pushes_that_agree_pass_and_the_first_one_does_not_count_for_the_pause() -> None:
    little = pushed()
    for push in little["pushes"][1:]:
        push["sent"] = 3
    held = conclude({"gloo": pushed(), "ipc": pushed(), "nccl delta": little}, GLOO, IPC, DELTA)
    assert held["ipc: a pause of 0.1 s at most"] and held["nccl delta: little travels"]
    assert all(held.values()) and len(held) == 3 * 4 + 2 + 2


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        ({"digests": [*DIGESTS[:4], "x"]}, "ipc: the weights are, bit for bit, those that gloo left"),
        ({"digests": ["a"] * 5}, "ipc: each version has weights of its own"),
        ({"moves": [1.0, 0.02, 1.0, 1.0]}, "ipc: the engine's log-probs are the learner's"),
        ({"pushes": pushed()["pushes"][:4]}, "ipc: 5 versions pushed"),
        (
            {"seams": {**pushed()["seams"], "own": 0.4, "other": 0.4}},
            "ipc: tokens of answers under way are of the version they name",
        ),
        (
            {"seams": {**pushed()["seams"], "worst": 0.06}},
            "ipc: tokens of answers under way are of the version they name",
        ),
        ({"pushes": [{**push, "pauses": [0.2]} for push in pushed()["pushes"]]}, "ipc: a pause of 0.1 s at most"),
    ],
)
def test_each_fault_fails_its_claim(change: dict[str, Any], failed: str) -> None:
    held = conclude({"gloo": pushed(), "ipc": pushed(**copy.deepcopy(change))}, GLOO, IPC)
    assert held[failed] is False
    assert all(held[what] for what in held if what.startswith("gloo"))


def test_a_delta_as_large_as_the_weights_and_a_way_that_was_not_reached_fail() -> None:
    held = conclude({"nccl delta": pushed()}, DELTA, GLOO)
    assert held["nccl delta: little travels"] is False and held["gloo: 5 versions pushed"] is False
    held = conclude({"gloo": {"failed": "its process died"}}, GLOO)
    assert held == {"gloo: 5 versions pushed": False}


def test_without_an_answer_that_a_push_fell_into_versions_of_tokens_are_not_looked_at() -> None:
    held = conclude({"gloo": pushed(seams={**pushed()["seams"], "seams": 0})}, GLOO)
    assert held.pop("gloo: tokens of answers under way are of the version they name") is None
    assert all(held.values())


def whole(folder: Path, **changes: Any) -> Run:
    steps = [
        {"step": step, "learner/loss": -0.1, "learner/grad_norm": 2.0, "push/probe_difference": 0.01}
        for step in range(3)
    ]
    found = {"code": 0, "steps": steps, "summary": {"version": 3}, "left": [], "seen": 12, "end": "", **changes}
    return Run(folder, **found)


def run_of(tmp_path: Path, **changes: Any) -> list[str]:
    """Claims that fail."""
    (tmp_path / "config.yaml").write_text("{}\n")
    (tmp_path / "trace.json").write_text("[]")
    (tmp_path / "summary.json").write_text(json.dumps({"seconds": 1.0, "sequences": 1, "sequences_per_second": 1.0}))
    record = Record("run", "cuda")
    check_run.judged(record, whole(tmp_path, **changes), 3, 0.1)
    return [claim.what for claim in record.claims if not claim.held]


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, []),
        ({"left": ["ray::actor-0"]}, ["none of its 12 processes is left"]),
        ({"seen": 0}, ["none of its 0 processes is left"]),
        ({"summary": {"version": 2}}, ["the last version is in service"]),
        (
            {"steps": [{"step": s, "learner/loss": 0.0, "learner/grad_norm": 0.0} for s in range(3)]},
            ["every loss is finite and every gradient moves the weights", "engine and learner agree after every push"],
        ),
        (
            {"steps": [{"step": 0, "learner/loss": 1.0, "learner/grad_norm": 1.0, "push/probe_difference": 0.2}]},
            ["3 steps are trained, each once", "engine and learner agree after every push"],
        ),
    ],
)
def test_a_run_is_judged_by_each_of_its_promises(tmp_path: Path, changes: dict[str, Any], failed: list[str]) -> None:
    assert run_of(tmp_path, **changes) == failed


def test_a_difference_is_relative_to_the_reference_and_never_passes_for_a_number_that_is_none() -> None:
    import numpy as np

    reference = {"a": np.array([3.0]), "b": np.array([4.0])}
    assert difference({"a": np.array([3.0]), "b": np.array([4.5])}, reference) == pytest.approx(0.1)
    origin = {"a": np.array([3.0]), "b": np.array([3.0])}
    assert difference({"a": np.array([3.0]), "b": np.array([4.5])}, reference, origin) == pytest.approx(0.5)
    assert difference({"a": np.array([np.nan]), "b": np.array([4.0])}, reference) == float("inf")
