"""What `azr replay` finds to replay, what it compares, and what it says when it cannot. Nothing is trained."""

from __future__ import annotations

import dataclasses
import json
from multiprocessing import Pipe
from pathlib import Path

import pytest

from azr.cli import MISUSED, main
from azr.lock import held
from azr.ranks import received
from azr.replay import differing, header, line, verdict
from azr.replay_plan import Plan, changes, lineage, longest, plan
from common.config import Config, LoggingConfig, ModelConfig, load, to_yaml
from common.errors import ConfigError, PartFailed
from tests.fakes.peers import Stage, small


def row(step: int, loss: float) -> dict[str, float]:
    return {"step": step, "groups": 6, "learner/loss": loss, "learner/grad_norm": 1.0}


async def a_run(folder: Path, *, keep: bool, trained: int) -> None:
    """What a run of four steps, with checkpoints after two and four, leaves that is killed after `trained` steps."""
    model = folder / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text("{}")
    config = small(steps=4, save_every=2)
    config = dataclasses.replace(
        config,
        model=ModelConfig(path=str(model)),
        algorithm=dataclasses.replace(config.algorithm, train_mc=2),
        logging=LoggingConfig(keep_journal=keep),
    )
    (folder / "config.yaml").write_text(to_yaml(config))
    stage = Stage(config, folder)
    await stage.begin(0)
    stage.spawn(stage.act(0))
    await stage.settle()
    for step in range(trained):
        await stage.train(step, {"loss": step / 4, "grad_norm": 1.0})
        if (step + 1) % 2 == 0:
            checkpoint = folder / "checkpoints" / f"step-{step + 1:06d}"
            checkpoint.mkdir()
            (checkpoint / "trainer.json").write_text("{}")
    await stage.crash()


def test_the_last_row_of_a_step_counts_and_ends_what_came_after_it() -> None:
    rows = [row(0, 0.5), row(1, 0.25), row(2, 0.125), {"version": 2.0}, row(1, 0.75)]
    assert {step: figures["loss"] for step, figures in lineage(rows).items()} == {0: 0.5, 1: 0.75}


def test_the_longest_stretch_from_a_weight_that_is_there() -> None:
    assert longest((0, 2), {0, 1, 2, 3}) == range(4)
    assert longest((0, 2, 4), {2, 3, 4, 5}) == range(2, 6)
    assert longest((0, 4), {0, 1, 4, 5, 6}) == range(4, 7)
    assert not longest((0, 2), {1, 3})


def test_only_equal_bits_are_equal() -> None:
    recorded = {"loss": 0.1, "grad_norm": 0.3, "kl": float("nan"), "lr": 0.0, "seconds_forward": 1.0}
    same = {**recorded, "seconds_forward": 2.0, "of a later version": 1.0}
    assert differing(recorded, same) == []
    assert differing(recorded, {**same, "lr": -0.0, "grad_norm": 0.1 + 0.2}) == ["grad_norm", "lr"]
    assert differing(recorded, {**same, "loss": float("nan")}) == ["loss"]


def test_a_counterfactual_names_what_it_changes() -> None:
    run = Config()
    other = load("tiny.yaml", ["learner.loss=cispo", "algorithm.baseline=group", "run.name=other"])
    assert list(changes(run, run)) == []
    assert list(changes(run, other)) == [
        f"learner.loss=cispo (run: {run.learner.loss})",
        "algorithm.baseline=group (run: stream)",
    ]


def test_the_text_says_what_was_replayed_and_where_it_first_differs() -> None:
    recorded = {step: {"loss": 0.5, "grad_norm": 1.0} for step in range(6)}
    found = Plan(Config(), Path("r"), range(2, 6), Path("checkpoints/step-000002"), recorded, ())
    assert "steps 2 to 5 of 0 to 5, from step-000002, on 1 trainer rank" in header(found)
    assert "keep_journal" in header(found)
    wrong = ["loss", "grad_norm", "a", "b", "c", "d"]
    words = " ".join(line(2, recorded[2], {"loss": 0.25, "grad_norm": 2.0}, wrong).split())
    assert words == "2 0.25 0.5 2 1 6 differ: loss, grad_norm, a, ..."
    assert "all figures of 4 steps equal" in verdict(found, None)
    assert "step 3 is the first that differs" in verdict(found, 3)


async def test_a_kept_journal_reaches_back_to_the_base_model(tmp_path: Path) -> None:
    await a_run(tmp_path, keep=True, trained=4)
    found = plan(tmp_path, ["learner.loss=cispo"])
    assert (found.steps, found.start, len(found.changes)) == (range(4), None, 1)
    assert [found.recorded[step]["loss"] for step in found.steps] == [0.0, 0.25, 0.5, 0.75]


async def test_without_it_a_run_that_was_cut_short_is_replayed_from_its_checkpoint(tmp_path: Path) -> None:
    await a_run(tmp_path, keep=False, trained=3)
    found = plan(tmp_path, ["learner.loss=cispo"])
    assert (found.steps, found.start) == (range(2, 3), tmp_path / "checkpoints" / "step-000002")
    with pytest.raises(ConfigError, match=r"not as they were delivered; a replay takes learner\.KEY alone"):
        plan(tmp_path, ["algorithm.baseline=group"])


async def test_without_it_a_run_that_is_over_says_what_is_missing(tmp_path: Path) -> None:
    await a_run(tmp_path, keep=False, trained=4)
    with pytest.raises(ConfigError, match=r"no batch.*the base model, step-000002, step-000004.*keep_journal=true"):
        plan(tmp_path)


async def test_what_cannot_be_replayed_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["replay", str(tmp_path)]) == MISUSED
    await a_run(tmp_path, keep=True, trained=2)
    for words, said in (
        (["engine.max_tokens=5"], "has no effect"),
        (["learner.kind=none"], "without a learner"),
        ([f"model.path={tmp_path / 'nowhere'}"], "base model of the run is gone"),
        (["learner.los=ppo"], "learner.loss"),
    ):
        assert main(["replay", str(tmp_path), *words]) == MISUSED
        assert said in capsys.readouterr().err
    with held(tmp_path):
        assert main(["replay", str(tmp_path)]) == MISUSED
    (tmp_path / "metrics.jsonl").write_text("")
    assert main(["replay", str(tmp_path)]) == MISUSED
    assert "no trained step" in capsys.readouterr().err


def test_figures_come_in_order_until_all_ranks_are_done(tmp_path: Path) -> None:
    (first, to_first), (second, to_second) = Pipe(duplex=False), Pipe(duplex=False)
    for step in range(2):
        to_first.send_bytes(json.dumps({"step": step, "figures": {"loss": step}}).encode())
    for sender in (to_first, to_second):
        sender.send_bytes(b'{"done": true}')
        sender.close()
    assert list(received({first: 0, second: 1}, tmp_path)) == [(0, {"loss": 0}), (1, {"loss": 1})]


def test_a_rank_that_fails_or_dies_is_named(tmp_path: Path) -> None:
    receiver, sender = Pipe(duplex=False)
    sender.send_bytes(b'{"failed": "step 3: loss nan", "hint": "a smaller learner.lr"}')
    with pytest.raises(PartFailed, match=r"^trainer rank 1: step 3: loss nan\n  try: a smaller"):
        list(received({receiver: 1}, tmp_path))
    sender.close()
    (tmp_path / "trainer-1.log").write_text("Traceback: out of memory")
    with pytest.raises(PartFailed, match=r"trainer rank 1: its process died(?s:.*)out of memory"):
        list(received({receiver: 1}, tmp_path))
