"""How a run begins and where a resumed one goes on. Nothing is started."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from azr.host import _watch
from azr.train import _begin, _continue, train
from common.cluster import ClusterConfig
from common.config import Config, RunConfig, SeedsConfig
from common.errors import ConfigError
from common.learner import LearnerConfig
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


class Silent:
    """A cluster whose intake answers only once somebody has complained, and a view in which to do so."""

    def __init__(self) -> None:
        self.config = Config(cluster=ClusterConfig(watchdog=0.001))
        self.told: list[str] = []
        self.shown: asyncio.Future[dict[str, int]] = asyncio.get_running_loop().create_future()
        self._complained = asyncio.Event()

    async def status(self) -> dict[str, int]:
        await self._complained.wait()
        return {"step": 3}

    def progress(self, what: str) -> None:
        self.told.append(what)
        self._complained.set()

    def show(self, status: dict[str, int]) -> None:
        self.shown.set_result(status)

    def catch_up(self) -> None:
        pass


async def test_an_intake_that_does_not_answer_is_told() -> None:
    silent: Any = Silent()
    watching = asyncio.create_task(_watch(silent, silent, silent))
    assert await asyncio.wait_for(silent.shown, 20.0) == {"step": 3}
    watching.cancel()
    assert len(silent.told) == 1 and "the intake has not answered" in silent.told[0]


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
