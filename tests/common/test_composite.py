"""How often composites are asked for, and of how many components: a function of the version, worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.composite import CompositeConfig
from common.config import Config, load
from common.errors import ConfigError

OFFICIAL = CompositeConfig(start=100, interval=50, chance=0.5, chance_step=0.01, chance_max=0.8, most=1, most_max=3)


@pytest.mark.parametrize(
    ("version", "chance", "most"),
    [
        (0, 0.0, 0),
        (99, 0.0, 0),
        (100, 0.5, 1),  # samples step 101
        (149, 0.5, 1),
        (150, 0.51, 2),
        (199, 0.51, 2),
        (200, 0.52, 3),
        (250, 0.53, 3),
        (100 + 29 * 50, 0.79, 3),
        (100 + 30 * 50, 0.8, 3),
        (100 + 31 * 50, 0.8, 3),
        (10_000, 0.8, 3),
    ],
)
def test_the_official_curriculum(version: int, chance: float, most: int) -> None:
    assert OFFICIAL.chance_at(version) == pytest.approx(chance)
    assert OFFICIAL.most_at(version) == most


def test_off_is_the_default_and_means_never() -> None:
    off = Config().composite
    assert off.start == -1
    assert [(off.chance_at(version), off.most_at(version)) for version in (0, 1, 10_000)] == [(0.0, 0)] * 3


@given(
    st.integers(0, 40), st.integers(1, 9), st.floats(0, 0.4), st.floats(0, 0.1), st.integers(1, 3), st.integers(0, 3)
)
def test_a_schedule_begins_at_its_start_and_never_falls(
    start: int, interval: int, chance: float, step: float, most: int, more: int
) -> None:
    config = CompositeConfig(start, interval, chance, step, 0.5, 1, most, most + more)
    chances = [config.chance_at(version) for version in range(100)]
    mosts = [config.most_at(version) for version in range(100)]
    assert chances == sorted(chances) and mosts == sorted(mosts)
    assert chances[:start] == [0.0] * start and mosts[:start] == [0] * start
    assert (chances[start], mosts[start]) == (chance, most)
    assert max(chances) <= 0.5 and max(mosts) <= most + more
    assert all(most == mosts[start] for most in mosts[start : start + interval])


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"start": -2}, r"composite\.start must be .* or -1"),
        ({"interval": 0}, r"composite\.interval must be at least 1"),
        ({"chance": -0.1}, r"composite\.chance and chance_max are probabilities"),
        ({"chance_max": 1.1}, r"composite\.chance and chance_max are probabilities"),
        ({"chance": 0.9}, r"0 <= chance <= chance_max <= 1"),
        ({"chance_step": -0.01}, r"composite\.chance_step must be at least 0"),
        ({"least": 0}, r"composite\.least, most and most_max must be at least 1"),
        ({"least": 2, "most": 1}, r"not decrease in this order"),
        ({"most": 4, "most_max": 3}, r"not decrease in this order"),
    ],
)
def test_settings_that_make_no_schedule_are_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load("tiny.yaml", [f"composite.{key}={value}" for key, value in settings.items()])


def test_a_schedule_can_be_written_in_a_preset() -> None:
    config = load("tiny.yaml", ["composite.start=0", "composite.chance=1", "composite.chance_max=1"])
    assert config.composite == CompositeConfig(start=0, chance=1.0, chance_max=1.0)
