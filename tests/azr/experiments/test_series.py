"""Runs of an experiment one after the other on one host, with a host that writes what a run leaves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azr.experiments.cells import Cell, Outcome
from azr.experiments.series import Series, models
from azr.host import Run
from common.config import Config, load, to_yaml
from common.errors import PartFailed
from learner.resume_point import record_checkpoint
from tests.fakes.train import leave
from tests.project import ROOT

PRESET = ROOT / "configs" / "tiny.yaml"


@dataclass
class FakeHost:
    """Fails runs whose name holds `broken`; of those with `half` in it, the first time, with a checkpoint."""

    broken: str = "no such run"
    half: str = "no such run"
    made: list[tuple[str, bool]] = field(default_factory=list)  # (run, whether resumed)
    stopped: int = 0

    async def perform(self, run: Run) -> dict[str, Any]:
        self.made.append((run.folder.name.split("-")[0], run.start is not None))
        print("step 1 of", run.config.learner.steps)
        if self.broken in run.folder.name:
            raise PartFailed("executor-0", "its process died")
        if self.half in run.folder.name and run.start is None:
            record_checkpoint(run.folder, 1, "checkpoints/step-000001")
            raise PartFailed("trainer-0", "out of memory")
        leave(run.folder, run.config)
        return {}

    async def stop(self) -> None:
        self.stopped += 1


@contextmanager
def prepare(config: Config, resume: Path | None) -> Iterator[Run]:
    folder = Path(config.run.folder) / config.run.name
    folder.mkdir(parents=True, exist_ok=resume is not None)
    (folder / "config.yaml").write_text(to_yaml(config))
    yield Run(config, folder, (1, folder) if resume else None)


def cell(name: str, *settings: str) -> Cell:
    config = load(PRESET, ["learner.steps=8", "eval.tasks=2", *settings])
    return Cell(name, 0, 0, PRESET, (), config)


async def perform(host: FakeHost, folder: Path, *names: str) -> tuple[list[Outcome], list[str]]:
    said: list[str] = []
    return await Series(host, folder, said.append, prepare).perform([cell(name) for name in names]), said


async def test_runs_are_made_in_order_and_the_host_is_stopped_once(tmp_path: Path) -> None:
    host = FakeHost()
    outcomes, said = await perform(host, tmp_path, "one", "two")
    assert host.made == [("one", False), ("two", False)] and host.stopped == 1
    assert [outcome.failure for outcome in outcomes] == ["", ""]
    assert all((outcome.folder / "config.yaml").exists() for outcome in outcomes)
    assert said[0] == "[1/2] one, base seed 0, RL seed 0" and said[1].startswith("        done: ")
    (log,) = (tmp_path / "logs").glob("one-*.log")
    assert log.read_text() == "step 1 of 8\n"


async def test_a_run_that_fails_is_an_outcome_and_the_others_go_on(tmp_path: Path) -> None:
    host = FakeHost(broken="one")
    outcomes, said = await perform(host, tmp_path, "one", "two")
    assert "executor-0: its process died" in outcomes[0].failure and str(tmp_path / "logs") in outcomes[0].failure
    assert outcomes[1].failure == "" and said[1].startswith("        failed: ")


async def test_what_is_finished_is_not_made_again(tmp_path: Path) -> None:
    await perform(FakeHost(), tmp_path, "one")
    host = FakeHost()
    outcomes, _ = await perform(host, tmp_path, "one", "two")
    assert host.made == [("two", False)] and [outcome.failure for outcome in outcomes] == ["", ""]


async def test_a_run_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    await perform(FakeHost(half="two"), tmp_path, "one", "two")
    host = FakeHost()
    outcomes, _ = await perform(host, tmp_path, "one", "two")
    assert host.made == [("two", True)] and [outcome.failure for outcome in outcomes] == ["", ""]


async def test_a_run_that_only_lacks_its_last_evaluation_is_begun_again_and_its_remains_are_kept(
    tmp_path: Path,
) -> None:
    ((first,), _) = await perform(FakeHost(), tmp_path, "one")
    (first.folder / "evaluation.jsonl").unlink()
    host = FakeHost()
    await perform(host, tmp_path, "one")
    assert host.made == [("one", False)]
    assert sum("failed1" in path.name for path in (tmp_path / "runs").iterdir()) == 1


async def test_base_models_of_runs_that_are_to_be_made_are_known_before_the_first(tmp_path: Path) -> None:
    place = f"model.path={tmp_path / 'base'}"
    one, two = cell("one", place), cell("two", place, "learner.lr=1e-5")
    other, never = cell("other", place, "model.base_seed=2"), cell("never", place, "cluster.cores.ray=99999")
    found = models([one, two, other, never], tmp_path)
    assert [model.base_seed for model in found] == [1, 2]
    assert all(Path(model.path).name.startswith("base-") and model.build for model in found)
    said: list[str] = []
    await Series(FakeHost(), tmp_path, said.append, prepare).perform([other])
    assert models([one, two, other, never], tmp_path) == found[:1]
