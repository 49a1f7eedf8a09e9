"""Training in bfloat16 on real DeepSpeed and gloo: float32 masters and sums at every ZeRO stage, kept by checkpoints.

Two stages add the same numbers in another order, so after one step they agree to float32's rounding. From then on a
master close to the middle between two bfloat16 numbers may be rounded to either, and runs part slowly.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.config import Config
from common.errors import ConfigError, PartFailed
from common.types import Share
from learner import checkpoint
from learner.policy import load_policy, score
from learner.trainer import Trainer
from tests.learner.test_trainer_real import (
    DIVISIONS,
    STEPS,
    batch_of,
    config_for,
    micro_batch,
    model,
    run_ranks,
    shares_of,
    without_seconds,
)

__all__ = ["model"]  # the fixture
pytestmark = pytest.mark.real

DIVISION = "uneven"  # two ranks with three micro-batches each, some of them empty
PROBE = [np.arange(7, dtype=np.int32), np.arange(90, 30, -2, dtype=np.int32)]
SAVED = Path("checkpoints/1")
COPIES = 48


def config_of(model: Path, stage: int, *, dtype: str = "bfloat16", sparing: bool = False, **changes: Any) -> Config:
    config = config_for(model, stage, sparing=sparing)
    learner = replace(config.learner, **changes)
    return replace(config, model=replace(config.model, dtype=dtype), learner=learner)


def states(trainer: Trainer) -> dict[str, Any]:
    return {name: tensor.float().numpy().copy() for bucket in trainer.zero.states() for name, tensor in bucket}


def masters(found: dict[str, Any]) -> dict[str, Any]:
    return {name.removesuffix(".master"): value for name, value in found.items() if name.endswith(".master")}


@dataclass(frozen=True)
class Trained:
    first: dict[str, Any]  # states after one step, which were saved
    last: dict[str, Any]
    weights: dict[str, Any]  # after all steps
    metrics: list[dict[str, float]]
    again: dict[str, Any]  # states and metrics after the checkpoint was loaded and the rest was trained once more
    metrics_again: list[dict[str, float]]
    scores: list[Any]  # under the saved weights
    scores_again: list[Any]


def train_save_resume(trainer: Trainer) -> Trained:
    def steps(*numbers: int) -> list[dict[str, float]]:
        shares = [shares_of(step, DIVISIONS[DIVISION])[trainer.rank] for step in numbers]
        return [without_seconds(trainer.step(share)) for share in shares]

    head, rest = steps(0), range(1, STEPS)
    first = states(trainer)
    trainer.save(SAVED)
    scores = trainer.score(PROBE)
    tail = steps(*rest)
    last = states(trainer)
    weights = {name: tensor.float().numpy() for name, tensor in trainer.snapshot()}
    trainer.load(SAVED)
    scores_again = trainer.score(PROBE)
    tail_again = steps(*rest)
    return Trained(first, last, weights, head + tail, states(trainer), tail_again, scores, scores_again)


@dataclass(frozen=True)
class Run:
    config: Config
    folder: Path
    trained: Trained


class Runs:
    """Each kind of run once, when it is first asked for."""

    def __init__(self, model: Path, factory: pytest.TempPathFactory) -> None:
        self._model, self._factory = model, factory
        self._made: dict[str, Run] = {}

    def __call__(self, stage: int, **changes: Any) -> Run:
        key = f"{stage} {sorted(changes.items())}"
        if key not in self._made:
            config, folder = config_of(self._model, stage, **changes), self._factory.mktemp("run")
            self._made[key] = Run(config, folder, run_ranks(train_save_resume, config, 2, folder)[0])
        return self._made[key]


@pytest.fixture(scope="module")
def runs(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(model, tmp_path_factory)


KINDS: list[tuple[int, dict[str, Any]]] = [
    (1, {}),
    (2, {}),
    (3, {}),
    (2, {"offload_optimizer": True}),
    (3, {"offload_optimizer": True}),
]


def share(of: Any, whole: Any) -> float:
    return float(np.linalg.norm(of) / np.linalg.norm(whole))


def assert_agree(one: Trained, other: Trained, start: dict[str, Any]) -> None:
    """After a step to float32's rounding, after all of them to what rounded weights make of it.

    The embedding is also the head; at stage 0 its gradients are added in float32, at others first in bfloat16, which
    AdamW's first step, nearly the sign of a gradient, makes more of. The norm that all are clipped by holds it, too.
    """
    assert one.first.keys() == other.first.keys()
    for name in start:
        gradient, wanted = one.first[f"{name}.exp_avg"], other.first[f"{name}.exp_avg"]
        slack, slack_of_step = (2**-8, 0.1) if "embed" in name else (1e-4, 0.01)
        assert share(gradient - wanted, wanted) < slack, name
        master, wanted = one.first[f"{name}.master"], other.first[f"{name}.master"]
        assert share(master - wanted, wanted - start[name]) < slack_of_step, name
    for key, slack in (("loss", 0.005), ("grad_norm", 0.005), ("entropy", 1e-4)):
        found, expected = ([m[key] for m in trained.metrics] for trained in (one, other))
        assert found[0] == pytest.approx(expected[0], rel=1e-5 if key != "grad_norm" else 1e-4)
        assert found == pytest.approx(expected, rel=slack), key
    here, there = masters(one.last), masters(other.last)
    apart = sum(float(np.square(here[n] - there[n]).sum()) for n in there)
    moved = sum(float(np.square(there[n] - start[n]).sum()) for n in there)
    assert apart < 0.02**2 * moved


@pytest.fixture(scope="module")
def start(model: Path) -> dict[str, Any]:
    return {n: p.detach().float().numpy() for n, p in load_policy(model, torch.bfloat16).model.named_parameters()}


@pytest.mark.parametrize(("stage", "changes"), KINDS, ids=str)
def test_stages_agree(runs: Runs, start: dict[str, Any], stage: int, changes: dict[str, Any]) -> None:
    run = runs(stage, **changes)
    assert_agree(run.trained, runs(0).trained, start)


@pytest.mark.parametrize("stage", [1, 3])
def test_in_float32_offload_changes_nothing_but_the_order_of_sums(runs: Runs, stage: int) -> None:
    plain, offloaded = runs(stage, dtype="float32"), runs(stage, dtype="float32", offload_optimizer=True)
    lr = plain.config.learner.lr
    for name, weight in plain.trained.weights.items():
        np.testing.assert_allclose(offloaded.trained.weights[name], weight, atol=0.01 * lr, err_msg=name)
    for found, wanted in zip(offloaded.trained.metrics, plain.trained.metrics, strict=True):
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-4)
        assert found["grad_norm"] == pytest.approx(wanted["grad_norm"], rel=1e-4)


def test_stages_agree_with_a_float32_head_and_sparing_memory(runs: Runs, start: dict[str, Any]) -> None:
    """Under stage 3 the head's weight is gathered for every part, also where it is computed again.

    Held against stage 1, which adds the gradients of the parts in bfloat16 as well.
    """
    sparing = {"head_float32": True, "sparing": True}
    run = runs(3, **sparing)
    assert_agree(run.trained, runs(1, **sparing).trained, start)


def test_training_stays_near_that_in_float32(runs: Runs, start: dict[str, Any]) -> None:
    ours, exact = runs(0).trained, runs(0, dtype="float32").trained
    for key, slack in (("loss", 0.02), ("grad_norm", 0.02), ("entropy", 0.002)):
        assert [m[key] for m in ours.metrics] == pytest.approx([m[key] for m in exact.metrics], rel=slack), key
    found = masters(ours.last)
    steps = {name: (found[name] - start[name], exact.weights[name] - start[name]) for name in found}
    inner = sum(float((a * b).sum()) for a, b in steps.values())
    norms = [np.sqrt(sum(float(np.square(pair[i]).sum()) for pair in steps.values())) for i in (0, 1)]
    assert inner / (norms[0] * norms[1]) > 0.99, "the weights went another way"


ALL_KINDS = [(0, {}), *KINDS]


@pytest.mark.parametrize(("stage", "changes"), ALL_KINDS, ids=str)
def test_a_loaded_checkpoint_continues_bit_equal(runs: Runs, stage: int, changes: dict[str, Any]) -> None:
    trained = runs(stage, **changes).trained
    assert trained.metrics_again == trained.metrics[1:]
    assert trained.again.keys() == trained.last.keys()
    for name, value in trained.last.items():
        assert np.array_equal(trained.again[name], value), name
    assert all(np.array_equal(a, b) for a, b in zip(trained.scores, trained.scores_again, strict=True))


def load_elsewhere(trainer: Trainer, folder: Path) -> tuple[dict[str, Any], list[Any]]:
    trainer.load(folder)
    return states(trainer), trainer.score(PROBE)


@pytest.mark.parametrize(
    ("written", "ranks", "stage", "changes"),
    [(0, 2, 3, {}), (3, 2, 0, {}), (2, 1, 2, {}), (3, 2, 1, {"offload_optimizer": True})],
)
def test_another_stage_begins_with_the_same_states(
    runs: Runs, model: Path, tmp_path: Path, written: int, ranks: int, stage: int, changes: dict[str, Any]
) -> None:
    source = runs(written)
    config = config_of(model, stage, **changes)
    found, scores = run_ranks(load_elsewhere, config, ranks, tmp_path, source.folder / SAVED)[0]
    for name, value in source.trained.first.items():
        assert np.array_equal(found[name], value), name
    assert all(np.array_equal(a, b) for a, b in zip(scores, source.trained.scores, strict=True))


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_checkpoint_holds_weights_for_engines_and_their_masters(runs: Runs, stage: int) -> None:
    run = runs(stage)
    folder = run.folder / SAVED
    weights = load_file(folder / "hf" / "model.safetensors")
    kept = {name: value for part in checkpoint.read_states(folder) for name, value in part.items()}
    assert kept.keys() == {f"{name}.{key}" for name in weights for key in ("exp_avg", "exp_avg_sq", "master")}
    differing = 0
    for name, weight in weights.items():
        master = kept[f"{name}.master"]
        assert (weight.dtype, master.dtype) == (torch.bfloat16, torch.float32)
        assert torch.equal(master.bfloat16(), weight), name
        differing += int((master != weight).sum())
    assert differing > 0.9 * sum(weight.numel() for weight in weights.values()), "the masters are no more than weights"
    scores = score(load_policy(folder / "hf", torch.bfloat16), PROBE, tokens=64)
    np.testing.assert_allclose(scores[0], run.trained.scores[0], atol=0.05)


def divergences(trainer: Trainer) -> list[float]:
    return [trainer.step(shares_of(step, DIVISIONS["1x4"])[0])["kl_reference"] for step in range(2)]


@pytest.mark.parametrize("head_float32", [False, True])
def test_the_reference_is_rounded_as_the_policy_is(model: Path, tmp_path: Path, head_float32: bool) -> None:
    """The first weights do not diverge from themselves."""
    config = config_of(model, 0, kl=0.1, head_float32=head_float32)
    ((first, second),) = run_ranks(divergences, config, 1, tmp_path)
    assert first == 0.0
    assert second > 0.0


def with_a_gradient_that_overflows(trainer: Trainer) -> tuple[str, bool]:
    """What is said, and whether the first weights are still there."""
    before = {name: tensor.clone() for name, tensor in trainer.snapshot()}
    sequences = [replace(s, advantage=1e37 * (-1) ** i) for i, s in enumerate(batch_of(0))]
    with pytest.raises(PartFailed) as failure:
        trainer.step(Share(0, (micro_batch(sequences),)))
    return failure.value.what, all(torch.equal(before[n], t) for n, t in trainer.snapshot())


@pytest.mark.parametrize(
    ("stage", "dtype", "offload"),
    [
        (0, "bfloat16", False),
        (1, "bfloat16", False),
        (1, "bfloat16", True),
        (3, "bfloat16", False),
        (2, "float32", False),
        (3, "float32", True),
    ],
)
def test_a_norm_that_is_not_finite_stops_the_rank(
    model: Path, tmp_path: Path, stage: int, dtype: str, offload: bool
) -> None:
    """With a loss that is. Stage 3 adds squares up in float64, so gradients themselves have to overflow."""
    config = config_of(model, stage, dtype=dtype, offload_optimizer=offload, loss="reinforce")
    ((what, untouched),) = run_ranks(with_a_gradient_that_overflows, config, 1, tmp_path)
    loss, norm = what.split(", ")
    assert np.isfinite(float(loss.removeprefix("step 0: loss ")))
    assert norm == "gradient norm inf"
    assert untouched or stage == 0


def sum_of_copies(trainer: Trainer) -> dict[str, Any]:
    """First moments after a step on one sequence, and after one on COPIES micro-batches of it."""
    batch = micro_batch(batch_of(0)[:1])
    found = []
    for copies in (1, COPIES):
        trainer.step(Share(0, (batch,) * copies))
        found.append({n: v for n, v in states(trainer).items() if n.endswith(".exp_avg")})
        trainer.load(SAVED)
    return {name: (found[0][name], found[1][name]) for name in found[0]}


@pytest.mark.parametrize(
    ("stage", "offload"), [(0, False), (1, False), (2, True), (3, False)], ids=lambda value: str(value)
)
def test_gradients_are_added_in_float32(model: Path, tmp_path: Path, stage: int, offload: bool) -> None:
    """A sum in bfloat16 is some parts in a thousand off after so many terms, and later stops to grow."""
    config = config_of(model, stage, grad_clip=0.0, offload_optimizer=offload, loss="reinforce")
    (found,) = run_ranks(save_and_sum, config, 1, tmp_path)
    for name, (one, many) in found.items():
        np.testing.assert_allclose(many, COPIES * one, rtol=1e-4, atol=1e-9, err_msg=name)


def save_and_sum(trainer: Trainer) -> dict[str, Any]:
    trainer.save(SAVED)
    return sum_of_copies(trainer)


def test_a_float32_checkpoint_of_the_former_format_is_read(tmp_path: Path) -> None:
    (tmp_path / "trainer.json").write_text('{"format": 1, "steps": 7}')
    assert checkpoint.read_manifest(tmp_path, dtype="float32") == 7
    with pytest.raises(PartFailed, match="trained in float32, and model"):
        checkpoint.read_manifest(tmp_path, dtype="bfloat16")
    (tmp_path / "trainer.json").write_text('{"format": 3, "steps": 7}')
    with pytest.raises(PartFailed, match="has format 3; this program reads 1 and 2"):
        checkpoint.read_manifest(tmp_path, dtype="float32")


def test_an_unknown_precision_is_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="float16: the learner trains in float32 or bfloat16"):
        Trainer(config_of(model, 0, dtype="float16"), rank=0, world=1, master=("127.0.0.1", 1), folder=tmp_path)
