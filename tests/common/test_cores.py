"""Cores by role: how they are written, and what is refused."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config import load
from common.cores import cores
from common.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "found"), [("", ()), ("0", (0,)), ("2,0", (0, 2)), ("0-1,4,3-5", (0, 1, 3, 4, 5)), ("3-2", ())]
)
def test_lists_are_those_of_taskset(text: str, found: tuple[int, ...]) -> None:
    assert cores(text) == found


@given(st.sets(st.integers(0, 300)))
def test_every_set_can_be_written(wanted: set[int]) -> None:
    assert set(cores(",".join(map(str, wanted)))) == wanted


@pytest.mark.parametrize("text", ["one", "0-", "-1", "0,,1", "1-2-3", "3-2"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"cluster\.cores\.trainer must be like 0 or 0,2-3"):
        load(os.devnull, [f"cluster.cores.trainer='{text}'"])


def test_cores_are_of_this_machine() -> None:
    load(os.devnull, ["cluster.cores.ray=1"])
    with pytest.raises(ConfigError, match=r"with cluster\.address leave them empty"):
        load(os.devnull, ["cluster.cores.ray=1", "cluster.address=10.0.0.1:6379"])
