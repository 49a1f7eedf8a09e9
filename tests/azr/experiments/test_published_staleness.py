"""The staleness experiment whose results are in docs/staleness: whole, and told as they are."""

from __future__ import annotations

import csv
import json
import re
from typing import Any

import pytest

from tests.project import ROOT

FOLDER = ROOT / "docs" / "staleness"


@pytest.fixture(scope="module")
def results() -> dict[tuple[str, int], dict[str, Any]]:
    """By loss and η."""
    found = json.loads((FOLDER / "results.json").read_text())
    return {(result["setting"][0], result["setting"][1]): result for result in found}


def test_every_setting_has_its_seeds(results: dict[tuple[str, int], dict[str, Any]]) -> None:
    assert set(results) == {(loss, eta) for loss in ("reinforce", "ppo", "decoupled:4") for eta in (0, 4, 16)}
    assert {result["runs"] for result in results.values()} == {3}
    rows = list(csv.DictReader((FOLDER / "runs.csv").read_text().splitlines()))
    ends = {(row["loss"], int(row["eta"]), row["seed"]) for row in rows if row["version"] == "80"}
    assert len(ends) == 27


def test_samples_are_as_old_as_the_page_says(results: dict[tuple[str, int], dict[str, Any]]) -> None:
    assert all(result["off_policy"]["staleness"] == eta for (_, eta), result in results.items())


def test_what_is_told_as_held_and_destroyed_is(results: dict[tuple[str, int], dict[str, Any]]) -> None:
    assert abs(results["ppo", 4]["against_zero"]["mean"]) < 0.01
    assert results["ppo", 16]["after"]["low"] > 2 * results["ppo", 16]["before"]
    assert all(results["reinforce", eta]["against_zero"]["high"] < -0.25 for eta in (4, 16))
    assert all(results["decoupled:4", eta]["against_zero"]["high"] < 0 for eta in (4, 16))


def test_the_page_quotes_the_table() -> None:
    page = (ROOT / "docs" / "staleness.md").read_text()
    table = [line for line in (FOLDER / "table.md").read_text().splitlines() if line.startswith("| ")]
    quoted = re.findall(r"^\| (?:loss|reinforce|ppo|decoupled:4) .*$", page, re.MULTILINE)
    assert quoted == [line for line in table if not line.startswith("| ---")]
