"""How a run begins and where a resumed one goes on. Nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from azr.train import _begin, _continue, train
from common.config import Config, LearnerConfig, RunConfig, SeedsConfig
from common.errors import ConfigError
from learner.resume_point import record_checkpoint


def a_config(folder: Path, *, steps: int = 5) -> Config:
    return Config(run=RunConfig(name="a", folder=str(folder)), learner=LearnerConfig(steps=steps))


def test_a_run_that_exists_is_continued_and_not_begun_again(tmp_path: Path) -> None:
    folder, _, start = _begin(a_config(tmp_path))
    assert (folder, start) == (tmp_path / "a", None)
    (folder / "config.yaml").touch()
    with pytest.raises(ConfigError, match="--resume a"):
        _begin(a_config(tmp_path))


def test_before_the_first_checkpoint_a_run_goes_on_from_the_base_model(tmp_path: Path) -> None:
    folder, config, start = _continue(tmp_path, a_config(tmp_path))
    assert (folder, config.run.incarnation, start) == (tmp_path, 1, (0, None))


def test_after_it_from_the_newest_one_until_all_steps_are_trained(tmp_path: Path) -> None:
    record_checkpoint(tmp_path, 3, "checkpoints/step-000003")
    assert _continue(tmp_path, a_config(tmp_path))[2] == (3, tmp_path / "checkpoints" / "step-000003")
    with pytest.raises(ConfigError, match=r"learner\.steps=6"):
        _continue(tmp_path, a_config(tmp_path, steps=3))


def test_without_a_learner_there_is_nothing_to_continue(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"learner\.kind=none"):
        _continue(tmp_path, Config(learner=LearnerConfig(kind="none")))


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        (SeedsConfig(load="no/such/file.jsonl"), r"no/such/file\.jsonl"),
        (SeedsConfig(tasks=4, save="no/such/folder/seeds.jsonl"), "there is no folder .*no/such/folder"),
    ],
)
def test_seed_files_are_looked_at_before_anything_starts(tmp_path: Path, seeds: SeedsConfig, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train(Config(run=RunConfig(folder=str(tmp_path)), seeds=seeds))
    assert list(tmp_path.iterdir()) == []
