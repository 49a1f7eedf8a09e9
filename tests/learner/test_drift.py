"""When drift is warned of, and when it ends a run."""

from __future__ import annotations

import pytest

from common.errors import PartFailed
from common.off_policy import OffPolicyConfig
from learner.drift import DriftWatch

LIMITS = OffPolicyConfig(warn_mismatch=0.1, stop_mismatch=0.3, warn_ess=0.5, stop_ess=0.2)


def figures(mismatch: float = 0.0, ess: float = 1.0, fresh: float = 7.0, tokens: float = 9.0) -> dict[str, float]:
    return {"mismatch": mismatch, "fresh_tokens": fresh, "effective_sample_size": ess, "tokens": tokens}


def test_each_figure_warns_once() -> None:
    watch = DriftWatch(LIMITS, "trainer rank 0")
    assert watch.check(0, figures()) == []
    (first,) = watch.check(1, figures(mismatch=0.11))
    assert first.startswith("step 1: mismatch of 0.11 nats") and "learner.warn_mismatch=0.1; try: engine" in first
    (second,) = watch.check(2, figures(mismatch=0.2, ess=0.4))
    assert second.startswith("step 2: effective sample size of 0.4") and "smaller staleness.eta" in second
    assert watch.check(3, figures(mismatch=0.2, ess=0.4)) == []


def test_a_limit_itself_is_allowed() -> None:
    assert DriftWatch(LIMITS, "trainer rank 0").check(0, figures(mismatch=0.1, ess=0.5)) == []


@pytest.mark.parametrize(
    ("found", "key"),
    [(figures(mismatch=0.31), "learner.stop_mismatch=0.3"), (figures(ess=0.19), "learner.stop_ess=0.2")],
)
def test_beyond_the_second_limit_the_run_ends_by_name(found: dict[str, float], key: str) -> None:
    with pytest.raises(PartFailed, match=key) as failure:
        DriftWatch(LIMITS, "trainer rank 1").check(4, found)
    assert failure.value.part == "trainer rank 1"
    assert failure.value.what.startswith("step 4: ") and failure.value.hint.endswith("checkpoint is untouched")


def test_zero_is_never_and_nothing_is_said_of_no_tokens() -> None:
    never = OffPolicyConfig(warn_mismatch=0.0, stop_mismatch=0.0, warn_ess=0.0, stop_ess=0.0)
    assert DriftWatch(never, "trainer rank 0").check(0, figures(mismatch=9.0, ess=0.0)) == []
    nothing = figures(mismatch=9.0, ess=0.0, fresh=0.0, tokens=0.0)
    assert DriftWatch(LIMITS, "trainer rank 0").check(0, nothing) == []
