"""Intrinsic rewards against hand-worked numbers."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import IntrinsicConfig
from common.types import Task, TaskType
from learner import program as programs
from learner.intrinsic import TERMS, Seen, combined, counts, fold, measures, pays, terms
from learner.program import measure

SHORT = "def f(a):\n return a"
BRANCHING = "def f(a):\n if a:\n  for b in a:\n   if b:\n    return b\n return a"


def deduction(program: str = SHORT, given: str = "1", output: str = "1") -> Task:
    return Task(TaskType.DEDUCTION, program, (given,), (output,), f"{program}{given}")


INDUCTION = Task(TaskType.INDUCTION, SHORT, ("1", "2", "'x'"), ("1", "2", "'x'"), "i", shown=1)


def test_all_terms_are_off_by_default() -> None:
    assert terms(deduction(BRANCHING), [deduction()], Seen(), IntrinsicConfig()) == {}
    assert not pays(IntrinsicConfig()) and not counts(IntrinsicConfig())


@pytest.mark.parametrize("name", TERMS)
def test_each_term_is_a_setting_and_needs_counts_or_figures(name: str) -> None:
    config = replace(IntrinsicConfig(), **{name: 0.1})  # type: ignore[arg-type]
    assert pays(config)
    assert counts(config) is name.endswith("diversity")
    assert measures(config) is not counts(config)
    if measures(config):
        with pytest.raises(ValueError, match=f"nothing measures programs, which intrinsic.{name}"):
            terms(deduction(), [], Seen(), config)


def test_a_program_that_was_given_pays_nothing() -> None:
    config = IntrinsicConfig(complexity=1.0, halstead=1.0, edit_distance=1.0)
    assert terms(replace(INDUCTION, program=BRANCHING), [deduction()], Seen(), config, programs) == {}
    composite = replace(deduction(), program=BRANCHING, composite=True)
    assert terms(composite, [deduction()], Seen(), config, programs) == {}


def test_counts_on_top_of_others_leave_them_alone() -> None:
    before = fold([deduction(output="1")])
    after = fold([deduction(output="1"), deduction(output="2")], before)
    assert before == fold([deduction(output="1")])
    assert after == fold([deduction(output=text) for text in "112"])


def test_complexity_is_a_share_of_15_and_capped() -> None:
    program = measure(BRANCHING)
    assert program is not None and program.cognitive == 6  # if 1, for inside 2, if inside 3
    assert terms(deduction(BRANCHING), [], Seen(), IntrinsicConfig(complexity=1.0), programs) == {"complexity": 6 / 15}
    assert terms(deduction(BRANCHING), [], Seen(), IntrinsicConfig(complexity=9.0), programs) == {"complexity": 0.5}


def test_halstead_sums_three_capped_shares() -> None:
    program = measure(BRANCHING)
    assert program is not None
    expected = 0.5 * program.effort / 1e4 + 0.3 * program.cyclomatic / 10 + 0.2 * program.volume / 500
    found = terms(deduction(BRANCHING), [], Seen(), IntrinsicConfig(halstead=1.0), programs)
    assert found == {"halstead": pytest.approx(expected)} and program.cyclomatic == 4


def test_distance_is_the_mean_over_references() -> None:
    config = IntrinsicConfig(edit_distance=1.0, limit=1.0)
    assert terms(deduction(), [deduction()], Seen(), config, programs) == {"edit_distance": 0.0}
    alone = terms(deduction(), [deduction(BRANCHING)], Seen(), config, programs)["edit_distance"]
    assert 0 < alone < 1
    both = terms(deduction(), [deduction(BRANCHING), deduction()], Seen(), config, programs)["edit_distance"]
    assert both == pytest.approx(alone / 2)
    assert terms(deduction(), [], Seen(), config, programs) == {}


def test_diversity_is_the_surprise_at_the_answer() -> None:
    seen = fold([deduction(output=text) for text in ("1", "1", "2", "'x'")])[TaskType.DEDUCTION]
    plain, typed = (IntrinsicConfig(answer_diversity=1.0, hierarchical=h, limit=1.0) for h in (False, True))
    assert terms(deduction(output="1"), [], seen, plain) == {"answer_diversity": pytest.approx(1 - 2 / 4)}
    assert terms(deduction(output="9"), [], seen, plain) == {"answer_diversity": 1.0}
    # three of four are ints, two of the three ints are 1
    assert terms(deduction(output="1"), [], seen, typed) == {
        "answer_diversity": pytest.approx(((1 - 3 / 4) + (1 - 2 / 3)) / 2)
    }


def test_induction_is_judged_by_means_over_its_inputs_and_outputs() -> None:
    config = IntrinsicConfig(answer_diversity=1.0, input_diversity=1.0, output_diversity=0.5, limit=1.0)
    seen = fold([replace(INDUCTION, inputs=("1", "1", "1"), outputs=("7", "7", "'x'"))])[TaskType.INDUCTION]
    found = terms(INDUCTION, [], seen, config)
    assert found == {
        "input_diversity": pytest.approx((0 + 1 + 1) / 3),
        "output_diversity": pytest.approx(0.5 * (1 + 1 + 2 / 3) / 3),
    }


def test_combinations() -> None:
    found = {"complexity": 0.2, "halstead": 0.5}
    assert combined(0.5, found, "sum") == pytest.approx(1.2)
    assert combined(0.5, found, "multiply") == pytest.approx(0.05)
    assert combined(0.5, found, "sum_multiply") == pytest.approx(0.6)
    assert combined(0.5, found, "multiply_sum") == pytest.approx(0.35)
    with pytest.raises(ValueError, match="average"):
        combined(0.5, found, "average")


@given(
    st.floats(-1, 1),
    st.dictionaries(st.sampled_from(TERMS), st.floats(0, 0.5)),
    st.sampled_from(["sum", "multiply", "sum_multiply", "multiply_sum"]),
)
def test_what_is_not_learnable_earns_nothing_more(rate: float, found: dict[str, float], method: str) -> None:
    reward = combined(rate, found, method)
    assert math.isfinite(reward)
    if rate <= 0 or not found:
        assert reward == rate


def test_a_program_that_cannot_be_measured_has_no_terms_of_its_own() -> None:
    config = IntrinsicConfig(complexity=1.0, answer_diversity=1.0)
    assert terms(deduction("def f(:"), [], Seen(), config, programs) == {"answer_diversity": 0.5}
