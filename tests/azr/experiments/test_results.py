"""From answers to figures and verdicts, by hand."""

from __future__ import annotations

import json
import math
from itertools import accumulate
from pathlib import Path

import pytest

from azr.experiments import results
from azr.experiments.answers import Answers, Point, differences
from azr.experiments.collapse import Trend
from azr.experiments.intervals import Interval
from azr.experiments.results import Change, Target, points
from common.errors import PartFailed
from common.types import TASK_TYPES, TaskType

D, A, I = TASK_TYPES  # noqa: E741


def answers(*given: tuple[int, str, TaskType, str]) -> Answers:
    """(version, set, type, a digit per task: 1 right, 0 wrong)."""
    return Answers(
        {(Point(v, s), t): {str(i): digit == "1" for i, digit in enumerate(digits)} for v, s, t, digits in given}
    )


def both(version: int, eval_set: str, digits: str) -> list[tuple[int, str, TaskType, str]]:
    return [(version, eval_set, t, digits) for t in TASK_TYPES]


def test_answers_are_read_and_the_last_one_counts(tmp_path: Path) -> None:
    row = {"version": 0, "set": "standard", "type": "deduction", "key": "k"}
    later = {**row, "version": 5, "set": "harder/forced"}
    rows = [
        {**row, "right": False},
        {**row, "right": True},
        {**row, "key": "l", "right": True},
        {**later, "right": False},
    ]
    (tmp_path / "evaluation.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = Answers.read(tmp_path)
    assert found.right == {
        (Point(0, "standard"), D): {"k": True, "l": True},
        (Point(5, "harder/forced"), D): {"k": False},
    }
    assert found.points() == {Point(0, "standard"), Point(5, "harder/forced")}


def test_answers_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    assert Answers.read(tmp_path).right == {}
    (tmp_path / "evaluation.jsonl").write_text('{"version": 0}\n')
    with pytest.raises(PartFailed, match=r"evaluation\.jsonl: KeyError"):
        Answers.read(tmp_path)


def test_differences_pair_tasks_and_leave_out_what_not_all_were_asked() -> None:
    one = answers((0, "standard", D, "0101"), (9, "standard", D, "1100"), (0, "standard", A, "1"))
    two = answers((0, "standard", D, "001"), (9, "standard", D, "1111"))
    (base,) = differences([[one, two]], [D, A], Point(9, "standard"), Point(0, "standard"))
    (deduction,) = base
    assert deduction.tolist() == [[1, 0, 0], [1, 1, 0]]
    assert differences([[one]], [I], Point(9, "standard")) == []


def test_before_after_and_gain_by_hand() -> None:
    runs = [
        answers(*both(0, "standard", "0101"), *both(4, "standard", "1101"), *both(9, "standard", "1111")),
        answers(*both(0, "standard", "0001"), *both(4, "standard", "0001"), *both(9, "standard", "0111")),
    ]
    found = results.cell([runs], 9)
    assert (found.bases, found.runs, list(found.changes)) == (1, 2, ["standard"])
    deduction = found.changes["standard"]["deduction"]
    assert (deduction.before, deduction.after, deduction.gain.mean) == (0.375, 0.875, 0.5)
    assert found.changes["standard"]["mean"].gain.mean == 0.5
    curve = found.curves["deduction"]
    assert (curve.versions, curve.mean) == ((0, 4, 9), (0.375, 0.5, 0.875))
    assert curve.runs == ((0.5, 0.75, 1.0), (0.25, 0.25, 0.75))


def test_the_base_with_its_thought_begun_is_a_cell_without_training() -> None:
    base = answers(*both(0, "standard", "0001"), *both(0, "forced", "0111"), *both(9, "standard", "1111"))
    change = results.forced([[base]]).changes["standard"]["induction"]
    assert (change.before, change.after) == (0.25, 0.75)
    above = results.above_forced([[base]], 9)
    assert list(above) == ["standard"]
    assert (above["standard"]["deduction"].before, above["standard"]["deduction"].after) == (0.75, 1.0)


def binomial_quantile(n: int, p: float, q: float) -> int:
    """The smallest k with P(X ≤ k) ≥ q."""
    below = accumulate(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in range(n + 1))
    return next(k for k, share in enumerate(below) if share >= q)


def test_intervals_for_the_best_of_three_are_wider() -> None:
    """One run, 3 of 40 tasks gained: a resample gains Binomial(40, 3/40); 5 % and a third of it are left outside."""
    low, high = (binomial_quantile(40, 3 / 40, q) for q in (0.025, 0.975))
    lower, higher = (binomial_quantile(40, 3 / 40, q) for q in (0.05 / 6, 1 - 0.05 / 6))
    assert (lower, low, high, higher) == (0, 0, 7, 8)
    run = answers((0, "standard", D, "0" * 40), (9, "standard", D, "1" * 3 + "0" * 37), (0, "forced", D, "0" * 40))
    plain = results.cell([[run]], 9).changes["standard"]["deduction"].gain
    strict = results.above_forced([[run]], 9)["standard"]["deduction"].gain
    assert plain == Interval(0.075, low / 40, high / 40)
    assert strict == Interval(0.075, lower / 40, higher / 40)


def gain(mean: float, low: float = -1.0, after: float = 0.5) -> Change:
    return Change(after - mean, after, Interval(mean, low, 1.0))


def verdicts(standard: dict[str, Change], above: dict[str, dict[str, Change]]) -> list[bool | None]:
    return [t.met for t in results.targets({"azr": results.CellResult(1, 1, {"standard": standard})}, above, [])]


def test_targets_that_are_met_and_missed() -> None:
    good = {"deduction": gain(0.2), "abduction": gain(0.0), "induction": gain(0.25, after=0.2), "mean": gain(0.15)}
    bad = {"deduction": gain(0.19), "abduction": gain(-0.01), "induction": gain(0.2, after=0.19), "mean": gain(0.14)}
    above = {
        "standard": {"deduction": gain(-0.1), "induction": gain(0.2, low=0.01)},
        "harder": {"deduction": gain(0.1, low=0.0)},
    }
    assert verdicts(good, above) == [True, True, True, True, False, True, None, None]
    assert verdicts(bad, {}) == [False, False, False, None, None, False, None, None]
    assert [t.met for t in results.targets({}, {}, [])] == [None] * 8
    sound, collapsed = Trend("valid", D, 0.9, 0.5), Trend("novel", D, 0.9, 0.4)
    assert [results.targets({}, {}, trends)[-1].met for trends in ([sound], [sound, collapsed])] == [True, False]


@pytest.mark.parametrize(("found", "met"), [(0.029, True), (-0.1, True), (0.03, False)])
def test_shuffled_rewards_must_not_teach(found: float, met: bool) -> None:
    shuffled = results.CellResult(1, 1, {"standard": {"mean": gain(found)}})
    assert results.targets({"shuffled": shuffled}, {}, [])[-2].met is met


def test_a_control_is_compared_on_the_same_base_with_the_same_seed() -> None:
    """Base 0, seed 0: 1 and 0 of two tasks, against 1 and 1. Seed 1 and base 1 have no like."""

    def run(*right: bool) -> Answers:
        return Answers({(Point(4, "standard"), D): {str(task): value for task, value in enumerate(right)}})

    control = {0: {0: run(True, True), 1: run(False, False)}, 1: {0: run(False, False)}}
    found = results.against(control, {0: {0: run(True, False)}}, 4)
    assert {name: round(above.mean, 3) for name, above in found["standard"].items()} == {"deduction": 0.5, "mean": 0.5}
    assert list(found) == ["standard"]
    assert results.against(control, {}, 4) == {}


def test_the_mean_of_three_is_no_task_that_may_be_above_forced_thought() -> None:
    assert verdicts({}, {"standard": {"deduction": gain(0.1, low=-0.1), "mean": gain(0.1, low=0.1)}})[3] is False


def test_how_a_verdict_reads() -> None:
    assert points(Interval(0.2, -0.015, 0.3)) == "+20.0 [-1.5, +30.0]"
    assert str(Target("it works", True, "by 1")) == "met: it works (by 1)"
    assert str(Target("it works", None)) == "not measured: it works"
