"""Settings of the loss that would make no sense are refused by name."""

from __future__ import annotations

import pytest

from common.config import load
from common.errors import ConfigError
from common.off_policy import LOSSES


@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_can_be_chosen(loss: str) -> None:
    assert load("tiny.yaml", [f"learner.loss={loss}", "learner.minibatches=4"]).learner.loss == loss


@pytest.mark.parametrize(
    "override",
    [
        "learner.loss=grpo",
        "learner.proximal=guess",
        "learner.clip=0",
        "learner.tis_cap=0.5",
        "learner.icepop_low=1",
        "learner.cispo_high=0.2",
        "learner.gspo_clip_low=2",
        "learner.minibatches=0",
        "learner.entropy_bonus=-0.001",
        "learner.kl=-1",
        "learner.stop_mismatch=-1",
        "learner.warn_ess=1.5",
        "learner.stop_ess=-0.1",
    ],
)
def test_what_cannot_be_is_refused_by_name(override: str) -> None:
    key = override.partition("=")[0].removeprefix("learner.")
    with pytest.raises(ConfigError, match=rf"learner\..*{key}"):
        load("tiny.yaml", [override])
