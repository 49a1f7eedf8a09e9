"""η of staleness.auto: by hand, and what holds whatever is seen."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import load
from common.errors import ConfigError
from common.staleness import StalenessConfig
from learner.lead import Evidence, Lead

FINE = 0.9
LOW = 0.4


def lead(eta: int, eta_max: int = 8, patience: int = 2) -> Lead:
    return Lead(StalenessConfig(eta=eta, auto=True, eta_max=eta_max, patience=patience, ess_floor=0.5, wait_share=0.1))


def fed(made: Lead, *steps: Evidence) -> list[tuple[int, str]]:
    return [(made.eta, why) for seen in steps for why in [made.weigh(seen)]]


def waiting(step: int, ess: float | None = FINE) -> Evidence:
    return Evidence(step, ess, 0.2, True)


def low(step: int) -> Evidence:
    return Evidence(step, LOW, 0.2, True)


def test_it_is_halved_when_the_effective_sample_size_stays_below_the_floor() -> None:
    assert fed(lead(5), low(0), low(1)) == [(5, ""), (2, "ess")]


def test_it_grows_by_one_when_the_learner_waits_for_what_it_forbids() -> None:
    assert fed(lead(2), waiting(0), waiting(1)) == [(2, ""), (3, "wait")]
    assert fed(lead(2), waiting(0, None), waiting(1, None)) == [(2, ""), (3, "wait")]


@pytest.mark.parametrize(
    "between",
    [
        Evidence(1, FINE, 0.1, True),  # it waited, but no longer than it may
        Evidence(1, FINE, 0.9, False),  # the actors were slow
        Evidence(1, LOW, 0.9, True),
    ],
)
def test_patience_counts_steps_in_a_row(between: Evidence) -> None:
    made = lead(2)
    assert fed(made, waiting(0), between, waiting(2)) == [(2, "")] * 3
    assert fed(made, waiting(3)) == [(3, "wait")]


def test_a_fine_step_forgives_the_low_ones_before_it() -> None:
    assert fed(lead(4), low(0), Evidence(1, 0.5, 0.0, False), low(2)) == [(4, "")] * 3


def test_a_change_is_judged_by_what_was_sampled_under_it() -> None:
    """Changed at step 1 from 4 to 2: batches up to 1 + 4 may have been granted before, 6 and 7 count."""
    made = lead(4)
    seen = fed(made, *(low(step) for step in range(8)))
    assert seen == [(4, ""), (2, "ess"), *[(2, "")] * 5, (1, "ess")]


def test_what_was_too_much_is_not_tried_again() -> None:
    made = lead(4)
    fed(made, low(0), low(1))
    fed(made, *(waiting(step) for step in range(6, 40)))
    assert made.eta == 3


def test_a_figure_that_is_no_number_is_low() -> None:
    nan = float("nan")
    assert fed(lead(2), Evidence(0, nan, 0.0, False), Evidence(1, nan, 0.0, False))[-1] == (1, "ess")


def test_at_zero_and_at_the_largest_it_stays() -> None:
    assert fed(lead(0), *(low(step) for step in range(5))) == [(0, "")] * 5
    assert fed(lead(8), *(waiting(step) for step in range(5))) == [(8, "")] * 5


EVIDENCE = st.tuples(st.none() | st.floats(0, 1) | st.just(float("nan")), st.floats(0, 1), st.booleans())


@given(
    eta_max=st.integers(0, 6), share=st.floats(0, 1), patience=st.integers(1, 3), seen=st.lists(EVIDENCE, max_size=80)
)
def test_it_keeps_its_bounds_and_its_patience(
    eta_max: int, share: float, patience: int, seen: list[tuple[float | None, float, bool]]
) -> None:
    made = lead(round(share * eta_max), eta_max, patience)
    settled = 0  # step that counts first
    for step, evidence in enumerate(seen):
        before = made.eta
        why = made.weigh(Evidence(step, *evidence))
        assert 0 <= made.eta <= eta_max
        assert {"": made.eta == before, "ess": made.eta == before // 2 < before, "wait": made.eta == before + 1}[why]
        if why:
            assert step + 1 >= settled + patience
            settled = step + max(before, made.eta) + 1


@given(
    eta_max=st.integers(0, 8),
    share=st.floats(0, 1),
    sizes=st.lists(st.floats(0, 1), min_size=9, max_size=9),
    waits=st.lists(st.floats(0, 1), min_size=9, max_size=9),
)
def test_where_evidence_follows_from_eta_alone_it_comes_to_rest(
    eta_max: int, share: float, sizes: list[float], waits: list[float]
) -> None:
    """At most eta_max falls, and between two of them at most eta_max rises; each takes at most 2 + 8 + 1 steps."""
    made = lead(round(share * eta_max), eta_max)

    def seen(step: int) -> Evidence:
        return Evidence(step, sizes[made.eta], waits[made.eta], True)

    most = (eta_max + 1) * (eta_max + 1) * 11
    for step in range(most):
        made.weigh(seen(step))
    rest = made.eta
    assert all(not made.weigh(seen(step)) for step in range(most, most + 30)) and made.eta == rest


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        (["staleness.mode=exact"], "set one of them"),
        (["staleness.eta=-1"], "begins with staleness.eta"),
        (["staleness.eta=9"], "begins with staleness.eta"),
        (["staleness.ess_floor=2"], "share of tokens"),
        (["staleness.wait_share=-1"], "share of a step"),
        (["staleness.patience=0"], "at least 1 learner step"),
    ],
)
def test_settings_that_make_no_sense(setting: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        load("tiny.yaml", ["staleness.auto=true", *setting])


@pytest.mark.parametrize(("by_hand", "bounds"), [(-1, (4, 8, 0)), (3, (3, 3, 3))])
def test_the_bound_follows_unless_it_is_set(by_hand: int, bounds: tuple[int, int, int]) -> None:
    settings = StalenessConfig(eta=2, auto=True, eta_max=4, max_staleness=by_hand)
    assert (settings.bound, settings.widest_bound, settings.bound_at(0)) == bounds
