"""The trainer on real DeepSpeed and gloo against plain PyTorch: same gradients, same weights, for every
division of a batch into ranks and micro-batches.
"""

from __future__ import annotations

import json
import multiprocessing as mp
import socket
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from common.config import Config, LearnerConfig, ModelConfig
from common.errors import PartFailed
from common.types import Int32Array, MicroBatch, Share
from learner.policy import answer_logprobs, load_policy, score

pytestmark = pytest.mark.real

SEQUENCES, STEPS, VOCABULARY = 12, 3, 512
TIMEOUT = 120.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import Qwen3Config, Qwen3ForCausalLM

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=64,
            tie_word_embeddings=True,
        )
    ).save_pretrained(folder)
    (folder / "tokenizer.json").write_text("{}")
    return folder


@dataclass(frozen=True)
class Sequence:
    prompt: Int32Array
    answer: Int32Array
    logprobs: np.ndarray[tuple[int], np.dtype[np.float32]]
    advantage: float
    weight: float


def batch_of(step: int) -> list[Sequence]:
    """Behaviour log-probs lie round those of a random model, so ratios fall on both sides of the clip."""
    random = np.random.default_rng(step)

    def one() -> Sequence:
        prompt, answer = (
            random.integers(0, VOCABULARY, random.integers(1, 9)).astype(np.int32) for _ in "pa"
        )
        logprobs = (-np.log(VOCABULARY) + 0.3 * random.standard_normal(len(answer))).astype(np.float32)
        return Sequence(
            prompt, answer, logprobs, float(random.standard_normal()), float(random.uniform(0.05, 0.2))
        )

    return [one() for _ in range(SEQUENCES)]


def micro_batch(sequences: list[Sequence]) -> MicroBatch:
    def flat(arrays: list[Any], dtype: Any) -> Any:
        return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)

    return MicroBatch(
        tokens=flat([part for s in sequences for part in (s.prompt, s.answer)], np.int32),
        prompt_lengths=np.array([len(s.prompt) for s in sequences], np.int32),
        answer_lengths=np.array([len(s.answer) for s in sequences], np.int32),
        logprobs=flat([s.logprobs for s in sequences], np.float32),
        staleness=flat([np.zeros(len(s.answer)) for s in sequences], np.int32),
        advantages=np.array([s.advantage for s in sequences], np.float32),
        weights=np.array([s.weight for s in sequences], np.float32),
    )


# How the 12 sequences of a batch are divided: sizes[rank][micro-batch]. Zeros are the padding micro-batches that
# bring all ranks to equal counts.
DIVISIONS = {
    "1x4": ((3, 3, 3, 3),),
    "2x2": ((3, 3), (3, 3)),
    "4x1": ((3,), (3,), (3,), (3,)),
    "uneven": ((1, 4, 5), (2, 0, 0)),
    "idle rank": ((5, 7), (0, 0)),
}


def shares_of(step: int, sizes: tuple[tuple[int, ...], ...]) -> list[Share]:
    waiting = iter(batch_of(step))
    return [
        Share(step, tuple(micro_batch([next(waiting) for _ in range(count)]) for count in counts))
        for counts in sizes
    ]


def config_for(model: Path, stage: int, loss: str = "ppo") -> Config:
    learner = LearnerConfig(
        zero_stage=stage,
        lr=1e-3,
        warmup_steps=2,
        grad_clip=0.5,
        weight_decay=0.01,
        loss=loss,
        micro_batch_tokens=64,
    )
    return Config(model=ModelConfig(path=str(model)), learner=learner)


def reference(model: Path, config: Config) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """Losses, gradient norms and final weights of plain PyTorch, one full batch per step."""
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    settings = config.learner
    optimizer = torch.optim.AdamW(net.parameters(), betas=settings.betas, weight_decay=settings.weight_decay)
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.zero_grad()
        total = torch.zeros(())
        for s in batch_of(step):
            tokens = torch.tensor(np.concatenate([s.prompt, s.answer]), dtype=torch.long)
            logits = net(tokens[None]).logits[0, len(s.prompt) - 1 : -1]
            now = torch.log_softmax(logits, -1)[torch.arange(len(s.answer)), tokens[len(s.prompt) :]]
            if settings.loss == "ppo":
                ratio = torch.exp(now - torch.tensor(s.logprobs))
                bounded = torch.clamp(ratio, 1 - settings.clip, 1 + settings.clip)
                total = total - s.weight * torch.min(ratio * s.advantage, bounded * s.advantage).sum()
            else:
                total = total - s.weight * s.advantage * now.sum()
        torch.autograd.backward(total)
        norms.append(float(torch.nn.utils.clip_grad_norm_(net.parameters(), settings.grad_clip)))
        losses.append(total.item())
        optimizer.param_groups[0]["lr"] = settings.lr * min(1.0, (step + 1) / settings.warmup_steps)
        optimizer.step()
    return losses, norms, {name: p.detach() for name, p in net.named_parameters()}


# -- processes -----------------------------------------------------------------------------------------------


def run_ranks(
    work: Callable[..., Any], config: Config, world: int, folder: Path, *arguments: Any
) -> list[Any]:
    """work(trainer, *arguments) on each of `world` spawned ranks; their results in order of rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("spawn")
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    ranks = [
        context.Process(
            target=_rank, args=(pipes[r][1], work, config, r, world, port, folder, arguments), daemon=True
        )
        for r in range(world)
    ]
    for rank in ranks:
        rank.start()
    try:
        for _, sender in pipes:
            sender.close()  # a rank that dies is then the end of its pipe
        assert all(receiver.poll(TIMEOUT) for receiver, _ in pipes), "a trainer rank is silent"
        return [receiver.recv() for receiver, _ in pipes]
    finally:
        for rank in ranks:
            rank.join(timeout=10)
            rank.kill()


def _rank(
    pipe: Connection,
    work: Callable[..., Any],
    config: Config,
    rank: int,
    world: int,
    port: int,
    folder: Path,
    arguments: tuple[Any, ...],
) -> None:
    from learner.trainer import Trainer

    trainer = Trainer(config, rank=rank, world=world, master=("127.0.0.1", port), folder=folder)
    pipe.send(work(trainer, *arguments))
    trainer.close()


def arrays(trainer: Any) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in trainer.snapshot()}


def train(
    trainer: Any, sizes: tuple[tuple[int, ...], ...], start: int, stop: int
) -> tuple[list[Any], dict[str, Any]]:
    metrics = [trainer.step(shares_of(step, sizes)[trainer.rank]) for step in range(start, stop)]
    return metrics, arrays(trainer)


def train_save_load(
    trainer: Any, sizes: tuple[tuple[int, ...], ...], folder: Path
) -> tuple[Any, Any, dict[str, Any], dict[str, Any], list[Any], list[Any]]:
    """Train one step, save, train on; then return to the checkpoint and train on again."""
    train(trainer, sizes, 0, 1)
    trainer.save(folder)
    probe = [np.arange(7, dtype=np.int32), np.array([3], np.int32), np.arange(90, 30, -2, dtype=np.int32)]
    scores = trainer.score(probe)
    first, weights = train(trainer, sizes, 1, STEPS)
    trainer.load(folder)
    scores_again = trainer.score(probe)
    again, weights_again = train(trainer, sizes, 1, STEPS)
    return first, again, weights, weights_again, scores, scores_again


def without_seconds(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("seconds_")}


# -- tests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("division", "stage", "loss"),
    [
        ("1x4", 0, "ppo"),
        ("2x2", 0, "reinforce"),
        ("4x1", 0, "ppo"),
        ("uneven", 2, "ppo"),
        ("idle rank", 0, "ppo"),
        ("uneven", 3, "ppo"),
    ],
)
def test_training_equals_plain_pytorch(
    model: Path, tmp_path: Path, division: str, stage: int, loss: str
) -> None:
    config = config_for(model, stage, loss)
    losses, norms, expected = reference(model, config)
    sizes = DIVISIONS[division]
    results = run_ranks(train, config, len(sizes), tmp_path, sizes, 0, STEPS)
    metrics, weights = results[0]
    assert [m["loss"] for m in metrics] == pytest.approx(losses, rel=1e-4, abs=1e-6)
    assert [m["grad_norm"] for m in metrics] == pytest.approx(norms, rel=1e-4)
    assert min(norms) > config.learner.grad_clip, "the batch must be one that is clipped"
    assert [m["lr"] for m in metrics] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert list(weights) == list(expected)
    for name, tensor in expected.items():
        np.testing.assert_allclose(weights[name], tensor.numpy(), rtol=0, atol=2e-6, err_msg=name)
    for step, m in enumerate(metrics):
        assert m["sequences"] == SEQUENCES
        assert m["tokens"] == sum(len(s.answer) for s in batch_of(step))
        assert 0 < m["effective_sample_size"] <= 1
        assert m["ratio_max"] >= m["ratio_mean"] > 0
    for other, nothing in results[1:]:
        assert nothing == {}
        assert [without_seconds(m) for m in other] == [without_seconds(m) for m in metrics]


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_loaded_checkpoint_continues_bit_equal(model: Path, tmp_path: Path, stage: int) -> None:
    sizes = DIVISIONS["uneven"]
    folder = tmp_path / "checkpoints" / "step-1"
    results = run_ranks(train_save_load, config_for(model, stage), 2, tmp_path, sizes, folder)
    first, again, weights, weights_again, scores, scores_again = results[0]
    assert [without_seconds(m) for m in first] == [without_seconds(m) for m in again]
    assert all(np.array_equal(weights[name], weights_again[name]) for name in weights)
    assert all(np.array_equal(a, b) for a, b in zip(scores, scores_again, strict=True))

    assert [path.name for path in folder.parent.iterdir()] == ["step-1"], "nothing half-written is left"
    assert json.loads((folder / "trainer.json").read_text())["steps"] == 1
    assert (folder / "hf" / "tokenizer.json").exists()
    assert "lm_head.weight" not in load_file(folder / "hf" / "model.safetensors")
    saved = load_policy(folder / "hf")
    ours = score(saved, [np.arange(7, dtype=np.int32)], tokens=64)[0]
    np.testing.assert_allclose(ours, scores[0], atol=1e-5)


def test_two_runs_are_bit_equal(model: Path, tmp_path: Path) -> None:
    runs = [
        run_ranks(train, config_for(model, 2), 2, tmp_path, DIVISIONS["2x2"], 0, STEPS)[0] for _ in range(2)
    ]
    (metrics, weights), (metrics_again, weights_again) = runs
    assert [without_seconds(m) for m in metrics] == [without_seconds(m) for m in metrics_again]
    assert all(np.array_equal(weights[name], weights_again[name]) for name in weights)


def test_log_probs_do_not_depend_on_padding(model: Path) -> None:
    policy = load_policy(model)
    sequences = batch_of(0)
    with torch.no_grad():
        together = answer_logprobs(policy, micro_batch(sequences))
        alone = torch.cat([answer_logprobs(policy, micro_batch([s])) for s in sequences])
        tokens = torch.tensor(np.concatenate([sequences[0].prompt, sequences[0].answer]), dtype=torch.long)
        whole = policy.model(tokens[None]).logits[0].log_softmax(-1)[:-1].gather(1, tokens[1:, None])[:, 0]
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-6)
    full = [np.concatenate([s.prompt, s.answer]) for s in sequences]
    scored = score(policy, full, tokens=40)
    assert [len(s) for s in scored] == [len(f) - 1 for f in full]
    np.testing.assert_allclose(scored[0], whole.numpy(), atol=2e-6)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=r"config\.json"):
        load_policy(tmp_path / "nowhere")


def test_a_micro_batch_without_a_prompt_is_refused(model: Path) -> None:
    whole = micro_batch(batch_of(0)[:1])
    bare = MicroBatch(
        whole.tokens, whole.prompt_lengths * 0, whole.prompt_lengths + whole.answer_lengths,
        whole.logprobs, whole.staleness, whole.advantages, whole.weights,
    )  # fmt: skip
    with pytest.raises(ValueError, match="prompt token"):
        answer_logprobs(load_policy(model), bare)
