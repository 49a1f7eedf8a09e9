"""The learning experiment whose results are in docs/learning: sound, and told as they are."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from azr.experiments.collapse import KEPT
from azr.experiments.controls import CELLS
from common.types import TASK_TYPES
from tests.project import ROOT

FOLDER = ROOT / "docs" / "learning"
LEAST = {"valid": 0.6, "novel": 0.6, "learnable": 0.1}  # in the last quarter of the steps


@pytest.fixture(scope="module")
def results() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "results.json").read_text())
    return found


def test_every_cell_was_run_over_seeds_and_bases_and_none_failed(results: dict[str, Any]) -> None:
    runs = {name: {(r["base"], r["seed"]) for r in results["runs"] if r["cell"] == name} for name in CELLS}
    assert runs["azr"] == {(base, seed) for base in range(2) for seed in range(3)}
    assert all(runs[name] == {(0, seed) for seed in range(3)} for name in CELLS if name != "azr")
    assert not any(run["failure"] for run in results["runs"])


def test_proposals_did_not_collapse(results: dict[str, Any]) -> None:
    for run in results["runs"]:
        if run["cell"] != "azr":
            continue
        last = {(trend["type"], trend["name"]): trend["last"] for trend in run["trends"]}
        assert set(last) == {(task_type, name) for task_type in TASK_TYPES for name in KEPT}
        assert not {key: share for key, share in last.items() if share < LEAST[key[1]]}, run["folder"]


def test_shuffled_rewards_teach_nothing(results: dict[str, Any]) -> None:
    gain = results["cells"]["shuffled"]["changes"]["standard"]["mean"]["gain"]
    assert gain["mean"] < 0.03 < results["cells"]["azr"]["changes"]["standard"]["mean"]["gain"]["low"]


def test_the_targets_that_are_told_as_met_are(results: dict[str, Any]) -> None:
    told = re.findall(r"^- (met|missed): (.*?) \(", (FOLDER / "table.md").read_text(), re.MULTILINE)
    assert [(text, verdict == "met") for verdict, text in told] == [
        (target["text"], target["met"]) for target in results["targets"]
    ]


def test_the_page_quotes_the_table(results: dict[str, Any]) -> None:
    """Each line of the page's own table: cell, set, task, before, after, gain."""
    page = (ROOT / "docs" / "learning.md").read_text()
    rows = set(re.findall(r"^\|.*\|$", page, re.MULTILINE))
    table = set(re.findall(r"^\|.*\|$", (FOLDER / "table.md").read_text(), re.MULTILINE))
    assert len(rows) > 20 and rows <= table
