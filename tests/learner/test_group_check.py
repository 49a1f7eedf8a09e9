"""What the learner relies on in a group is checked before the group is journaled."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from common.errors import WireError
from common.types import Group, Kind, Span
from learner.group_check import require_consistent
from learner.leases import lease_id
from tests.fakes.groups import a_group, a_sample

LEASE = lease_id(Kind.SOLVE_DEDUCTION, 4)
GOOD = a_sample(Kind.SOLVE_DEDUCTION, length=4, spans=(Span(1, 0, 3), Span(2, 3, 4)))


def group(**changes: object) -> Group:
    return a_group(LEASE, Kind.SOLVE_DEDUCTION, [dataclasses.replace(GOOD, **changes)])  # type: ignore[arg-type]


def test_a_consistent_group_passes() -> None:
    require_consistent(group())
    require_consistent(a_group(LEASE, Kind.SOLVE_DEDUCTION, failure="infra"))


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"prompt": 2}, "prompt 2 of 2"),
        ({"prompt": -1}, "prompt -1"),
        ({"logprobs": np.zeros(3, np.float32)}, "4 tokens with 3 log-probs"),
        ({"logprobs": np.array([-1, np.nan, -1, -1], np.float32)}, "not finite"),
        ({"logprobs": np.array([-1, -np.inf, -1, -1], np.float32)}, "not finite"),
        ({"spans": ()}, "do not cover"),
        ({"spans": (Span(1, 0, 2), Span(2, 3, 4))}, "do not cover"),
        ({"spans": (Span(1, 0, 5), Span(2, 5, 4))}, "do not cover"),
        ({"spans": (Span(1, 0, 3),)}, "do not cover"),
        ({"reward": float("nan")}, "reward nan"),
        ({"stream": Kind.EVAL}, "stream eval"),
        ({"tokens": np.zeros(0, np.int32), "logprobs": np.zeros(0, np.float32)}, "0 tokens"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, object], what: str) -> None:
    with pytest.raises(WireError, match=what):
        require_consistent(group(**changes))


def test_kind_must_be_that_of_the_lease() -> None:
    with pytest.raises(WireError, match="is of kind solve/deduction"):
        require_consistent(a_group(LEASE, Kind.SOLVE_ABDUCTION, [GOOD]))


def test_an_empty_group_needs_a_failure() -> None:
    with pytest.raises(WireError, match="neither samples nor a failure"):
        require_consistent(a_group(LEASE, Kind.SOLVE_DEDUCTION))


def test_a_seed_that_was_loaded_has_no_tokens() -> None:
    sample = dataclasses.replace(GOOD, tokens=np.zeros(0, np.int32), logprobs=np.zeros(0, np.float32), spans=())
    require_consistent(a_group(lease_id(Kind.SEED, 0), Kind.SEED, [sample]))
    uneven = dataclasses.replace(sample, logprobs=np.zeros(1, np.float32))
    with pytest.raises(WireError, match="0 tokens with 1 log-probs"):
        require_consistent(a_group(lease_id(Kind.SEED, 0), Kind.SEED, [uneven]))
