"""What counts as a collapse of proposals: shapes of runs, by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from azr.experiments.collapse import steps, trends
from common.errors import PartFailed

NAMES = ("valid", "rejected/known", "rejected/copy", "learnable")


def a_run(first: tuple[float, ...], last: tuple[float, ...], count: int = 8) -> list[dict[str, float]]:
    """A run of deduction proposals that changes at its middle; figures in the order of NAMES."""
    shapes = [first] * (count // 2) + [last] * (count - count // 2)
    return [{f"propose/deduction/{name}": share for name, share in zip(NAMES, shape, strict=True)} for shape in shapes]


def found(first: tuple[float, ...], last: tuple[float, ...]) -> dict[str, tuple[float, float, bool]]:
    return {t.name: (pytest.approx(t.first), pytest.approx(t.last), t.collapsed) for t in trends(a_run(first, last))}  # type: ignore[misc]


def test_a_run_that_gets_better_is_sound() -> None:
    """Learnability falls as the solver learns."""
    assert found((0.9, 0.0, 0.0, 0.4), (0.95, 0.0, 0.0, 0.1)) == {
        "valid": (0.9, 0.95, False),
        "novel": (1.0, 1.0, False),
        "learnable": (0.4, 0.1, False),
    }


def test_copies_are_legal_but_not_novel() -> None:
    assert found((0.8, 0.1, 0.1, 0.4), (0.1, 0.5, 0.2, 0.4)) == {
        "valid": (1.0, 0.8, False),
        "novel": (0.8, 0.125, True),
        "learnable": (0.4, 0.4, False),
    }


def test_proposals_that_became_invalid() -> None:
    shares = found((0.9, 0.0, 0.0, 0.4), (0.01, 0.0, 0.0, 0.4))
    assert [name for name, (_, _, collapsed) in shares.items() if collapsed] == ["valid"]


def test_nothing_left_to_learn() -> None:
    shares = found((0.9, 0.0, 0.0, 0.4), (0.9, 0.0, 0.0, 0.07))
    assert [name for name, (_, _, collapsed) in shares.items() if collapsed] == ["learnable"]


def test_what_was_never_there_did_not_collapse() -> None:
    assert not found((0.04, 0.0, 0.0, 0.04), (0.0, 0.0, 0.0, 0.0))["learnable"][2]


def test_only_the_first_and_the_last_quarter_count() -> None:
    rows = a_run((0.9, 0.0, 0.0, 0.4), (0.9, 0.0, 0.0, 0.4))
    rows[3]["propose/deduction/valid"] = 0.0
    rows[5].clear()
    assert not any(trend.collapsed for trend in trends(rows))


def test_no_proposals_and_short_runs_say_nothing() -> None:
    assert trends([{"solve/deduction/accuracy": 0.5}] * 8) == []
    assert trends(a_run((0.9, 0.0, 0.0, 0.4), (0.0, 0.0, 0.0, 0.0), count=3)) == []


def test_a_step_that_was_trained_again_counts_once(tmp_path: Path) -> None:
    rows = a_run((0.9, 0.0, 0.0, 0.4), (0.9, 0.0, 0.0, 0.4))
    lost = [{"step": 7, "groups": 6, "propose/deduction/valid": 0.0}, {"version": 7, "eval/deduction": 0.0}]
    written = [
        *lost,
        *({"step": number, "groups": 6, **row} for number, row in enumerate(rows)),
        {"step": 7, "lines": 3},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
    assert trends(steps(tmp_path)) == trends(rows)
    assert str(trends(rows)[0]) == "valid of deduction proposals: 0.90 → 0.90"


def test_metrics_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=r"metrics\.jsonl"):
        steps(tmp_path)
