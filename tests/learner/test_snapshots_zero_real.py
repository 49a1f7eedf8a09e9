"""Versions held straight from real DeepSpeed, where stage 3 has no whole parameter longer than it must."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.collective import flatten, unflatten
from learner.snapshots import HostSnapshots
from learner.trainer import Trainer
from tests.learner.test_trainer_real import config_for, model, run_ranks  # noqa: F401 - model is a fixture

pytestmark = pytest.mark.real


def held(trainer: Trainer) -> tuple[bool, list[int]]:
    """Whether the flat buffer of rank 0 is what a snapshot says; what is left of each parameter afterwards."""
    snapshots, buckets = HostSnapshots(), trainer.weights()
    if trainer.rank == 0:
        snapshots.hold(3, trainer.tensors, buckets)
    for _ in buckets:
        pass
    left = [p.numel() for p in trainer.zero.policy.parameters()]
    whole = trainer.snapshot()
    if trainer.rank:
        return whole == [], left
    buffer, _ = snapshots.lend(3)
    metas, expected = flatten(whole)
    names = [name for name, _ in unflatten(buffer, trainer.tensors)]
    return metas == trainer.tensors and names == [m.name for m in metas] and buffer.equal(expected), left


@pytest.mark.parametrize("stage", [0, 3])
def test_what_is_gathered_is_copied_before_it_goes(model: Path, tmp_path: Path, stage: int) -> None:  # noqa: F811
    outcomes: list[Any] = run_ranks(held, config_for(model, stage), 2, tmp_path)
    for equal, left in outcomes:
        assert equal
        assert any(left) == (stage == 0)
