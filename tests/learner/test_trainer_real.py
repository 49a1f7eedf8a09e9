"""The trainer on real DeepSpeed and gloo against plain PyTorch: same gradients, same weights, for every
division of a batch into ranks and micro-batches.
"""

from __future__ import annotations

import json
import math
import multiprocessing as mp
import socket
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM

from common.cluster import ClusterConfig
from common.config import Config, ModelConfig
from common.errors import PartFailed
from common.learner import LearnerConfig
from common.types import Int32Array, MicroBatch, Share
from learner.checkpoint import read_manifest
from learner.policy import TokenScores, answer_scores, load_policy, score
from learner.trainer import Trainer

pytestmark = pytest.mark.real

SEQUENCES, STEPS, VOCABULARY, HIDDEN = 12, 3, 512, 64
TIMEOUT = 120.0  # seconds a rank may take; it fails, not hangs, the test


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=VOCABULARY,
            hidden_size=HIDDEN,
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
    staleness: int = 0


def batch_of(step: int) -> list[Sequence]:
    """Behaviour log-probs lie round those of a random model, so ratios fall on both sides of the clip.

    Staleness is 0 or 3, so that ranks may differ in which of them they see.
    """
    random = np.random.default_rng(step)

    def one() -> Sequence:
        prompt, answer = (random.integers(0, VOCABULARY, random.integers(1, 9)).astype(np.int32) for _ in "pa")
        logprobs = (-np.log(VOCABULARY) + 0.3 * random.standard_normal(len(answer))).astype(np.float32)
        return Sequence(prompt, answer, logprobs, float(random.standard_normal()), float(random.uniform(0.05, 0.2)))

    return [replace(one(), staleness=3 * (i % 2)) for i in range(SEQUENCES)]


def micro_batch(sequences: list[Sequence]) -> MicroBatch:
    def flat(arrays: list[Any], dtype: Any) -> Any:
        return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype)

    return MicroBatch(
        tokens=flat([part for s in sequences for part in (s.prompt, s.answer)], np.int32),
        prompt_lengths=np.array([len(s.prompt) for s in sequences], np.int32),
        answer_lengths=np.array([len(s.answer) for s in sequences], np.int32),
        logprobs=flat([s.logprobs for s in sequences], np.float32),
        staleness=flat([np.full(len(s.answer), s.staleness) for s in sequences], np.int32),
        advantages=np.array([s.advantage for s in sequences], np.float32),
        weights=np.array([s.weight for s in sequences], np.float32),
        rows=np.ones(len(sequences), np.int32),
    )


# How the 12 sequences of a batch are divided: sizes[rank][micro-batch]. Zeros are the padding micro-batches
# that bring all ranks to equal counts.
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
        Share(step, tuple(micro_batch([next(waiting) for _ in range(count)]) for count in counts)) for counts in sizes
    ]


def config_for(model: Path, stage: int, loss: str = "ppo", *, sparing: bool = False) -> Config:
    """`sparing`: of memory, in every way there is."""
    learner = LearnerConfig(
        checkpoint_activations=sparing,
        head_tokens=64 * sparing,  # a quarter of what a micro-batch may have
        zero_stage=stage,
        lr=1e-3,
        warmup_steps=2,
        grad_clip=0.5,
        weight_decay=0.01,
        loss=loss,
        micro_batch_tokens=64,
    )
    return Config(model=ModelConfig(path=str(model)), learner=learner)


@dataclass(frozen=True)
class Outcome:
    """What STEPS steps led to: metrics per step, weights and first moments of AdamW by checkpoint name."""

    metrics: list[dict[str, float]]
    weights: dict[str, Any]
    moments: dict[str, Any]


def reference(model: Path, config: Config) -> Outcome:
    """Plain PyTorch, one full batch per step, one sequence at a time."""
    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32, attn_implementation="eager")
    settings = config.learner
    optimizer = torch.optim.AdamW(net.parameters(), betas=settings.betas, weight_decay=settings.weight_decay)
    metrics = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss, entropies, tokens_seen = torch.zeros(()), 0.0, 0
        for s in batch_of(step):
            tokens = torch.tensor(np.concatenate([s.prompt, s.answer]), dtype=torch.long)
            logits = net(tokens[None]).logits[0, len(s.prompt) - 1 : -1]
            every = torch.log_softmax(logits, -1)
            now = every[torch.arange(len(s.answer)), tokens[len(s.prompt) :]]
            entropies -= float((every.exp() * every).detach().sum())
            tokens_seen += len(s.answer)
            if settings.loss == "ppo":
                ratio = torch.exp(now - torch.tensor(s.logprobs))
                bounded = torch.clamp(ratio, 1 - settings.clip, 1 + settings.clip)
                loss = loss - s.weight * torch.min(ratio * s.advantage, bounded * s.advantage).sum()
            else:
                loss = loss - s.weight * s.advantage * now.sum()
        torch.autograd.backward(loss)
        norm = torch.nn.utils.clip_grad_norm_(net.parameters(), settings.grad_clip)
        lr = settings.lr * min(1.0, (step + 1) / settings.warmup_steps)
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        metrics.append({"loss": loss.item(), "grad_norm": norm.item(), "lr": lr, "entropy": entropies / tokens_seen})
    named = dict(net.named_parameters())
    return Outcome(
        metrics,
        {name: p.detach().numpy() for name, p in named.items()},
        {name: optimizer.state[p]["exp_avg"].numpy() for name, p in named.items()},
    )


# -- processes -----------------------------------------------------------------------------------------------


def run_ranks(work: Callable[..., Any], config: Config, world: int, folder: Path, *arguments: Any) -> list[Any]:
    """work(trainer, *arguments) on each of `world` processes; their results in order of rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = mp.get_context("forkserver")
    # Imports are most of a rank's start. Those of these modules start no thread, so forking after them is safe.
    context.set_forkserver_preload(["learner.trainer", "torch._inductor.compile_fx"])
    pipes = [context.Pipe(duplex=False) for _ in range(world)]
    ranks = [
        context.Process(target=_rank, args=(pipes[r][1], work, config, r, world, port, folder, arguments), daemon=True)
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
    trainer = Trainer(config, rank=rank, world=world, master=("127.0.0.1", port), folder=folder)
    pipe.send(work(trainer, *arguments))
    trainer.close()


def train(trainer: Trainer, division: str, start: int, stop: int) -> Outcome:
    return train_shares(trainer, [shares_of(step, DIVISIONS[division])[trainer.rank] for step in range(start, stop)])


def train_shares(trainer: Trainer, shares: list[Share]) -> Outcome:
    metrics = [trainer.step(share) for share in shares]
    weights = {name: tensor.numpy() for name, tensor in trainer.snapshot()}
    moments = {name: tensor.numpy() for bucket in trainer.zero.states() for name, tensor in bucket}
    first = {name.removesuffix(".exp_avg"): m for name, m in moments.items() if name.endswith(".exp_avg")}
    return Outcome([without_seconds(m) for m in metrics], weights, first)


@dataclass(frozen=True)
class Resumed:
    whole: Outcome  # all steps; a checkpoint was written after the first
    rest: Outcome  # the steps after the first once more, from that checkpoint
    scores: list[Any]  # under the weights that were saved
    scores_again: list[Any]  # under those that were loaded


def train_and_resume(trainer: Trainer, division: str) -> Resumed:
    probe = [np.arange(7, dtype=np.int32), np.array([3], np.int32), np.arange(90, 30, -2, dtype=np.int32)]
    head = train(trainer, division, 0, 1)
    trainer.save(Path("checkpoints/1"))
    scores = trainer.score(probe)
    tail = train(trainer, division, 1, STEPS)
    trainer.load(Path("checkpoints/1"))
    scores_again = trainer.score(probe)
    rest = train(trainer, division, 1, STEPS)
    return Resumed(Outcome(head.metrics + tail.metrics, tail.weights, tail.moments), rest, scores, scores_again)


def assert_bit_equal(one: Outcome, other: Outcome) -> None:
    assert one.metrics == other.metrics
    for name in one.weights:
        assert np.array_equal(one.weights[name], other.weights[name]), name
        assert np.array_equal(one.moments[name], other.moments[name]), name


def without_seconds(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if not name.startswith("seconds_")}


# -- tests ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    config: Config
    folder: Path
    ranks: list[Resumed]


@pytest.fixture(
    scope="module",
    params=[
        ("1x4", 0, "ppo", False),
        ("2x2", 0, "reinforce", False),
        ("4x1", 0, "ppo", False),
        ("idle rank", 1, "ppo", False),
        ("uneven", 2, "ppo", False),
        ("uneven", 3, "ppo", False),
        ("idle rank", 2, "ppo", True),
        ("uneven", 3, "ppo", True),
    ],
    ids=lambda param: f"{param[0]} zero-{param[1]} {param[2]}" + " sparing" * param[3],
)
def run(request: pytest.FixtureRequest, model: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    division, stage, loss, sparing = request.param
    config, folder = config_for(model, stage, loss, sparing=sparing), tmp_path_factory.mktemp("run")
    return Run(config, folder, run_ranks(train_and_resume, config, len(DIVISIONS[division]), folder, division))


def test_training_equals_plain_pytorch(run: Run, model: Path) -> None:
    expected, ours = reference(model, run.config), run.ranks[0].whole
    assert min(m["grad_norm"] for m in expected.metrics) > run.config.learner.grad_clip, "nothing was clipped"
    for wanted, found in zip(expected.metrics, ours.metrics, strict=True):
        assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4, abs=1e-6)
    assert list(ours.weights) == list(expected.weights)
    for name, weight in expected.weights.items():
        np.testing.assert_allclose(ours.moments[name], expected.moments[name], atol=1e-7, rtol=1e-4, err_msg=name)
        # AdamW turns rounding of a gradient near 0 into a visible part of a step, hence 1 % of one.
        np.testing.assert_allclose(ours.weights[name], weight, atol=0.01 * run.config.learner.lr, err_msg=name)


def test_every_rank_reports_the_whole_batch(run: Run) -> None:
    for step, metrics in enumerate(run.ranks[0].whole.metrics):
        assert metrics["sequences"] == SEQUENCES
        assert metrics["tokens"] == sum(len(s.answer) for s in batch_of(step))
        assert 0 < metrics["effective_sample_size"] <= 1
        assert metrics["ratio_max"] >= metrics["ratio_mean"] > 0
        buckets = {name.partition("/")[0] for name in metrics if name.startswith("staleness")}
        assert buckets == {"staleness_0", "staleness_3-4"}
        assert metrics["tokens"] == sum(metrics[f"{bucket}/tokens"] for bucket in buckets)
        assert metrics["ratio_max"] == max(metrics[f"{bucket}/ratio_max"] for bucket in buckets)
    for rank in run.ranks[1:]:
        assert rank.whole.metrics == run.ranks[0].whole.metrics
        assert rank.whole.weights == {}


def test_a_loaded_checkpoint_continues_bit_equal(run: Run) -> None:
    first = run.ranks[0]
    assert_bit_equal(Outcome(first.whole.metrics[1:], first.whole.weights, first.whole.moments), first.rest)
    assert all(np.array_equal(a, b) for a, b in zip(first.scores, first.scores_again, strict=True))


def test_a_checkpoint_is_a_hugging_face_folder(run: Run) -> None:
    folder = run.folder / "checkpoints" / "1"
    assert [path.name for path in folder.parent.iterdir()] == ["1"], "something half-written is left"
    assert json.loads((folder / "trainer.json").read_text())["steps"] == 1
    assert (folder / "hf" / "tokenizer.json").exists()
    assert set(load_file(folder / "hf" / "model.safetensors")) == set(run.ranks[0].whole.weights)
    scores = score(load_policy(folder / "hf"), [np.arange(7, dtype=np.int32)], tokens=64)
    np.testing.assert_allclose(scores[0], run.ranks[0].scores[0], atol=2e-6)


def test_two_runs_are_bit_equal(model: Path, tmp_path: Path) -> None:
    one, other = (run_ranks(train, config_for(model, 0), 2, tmp_path, "uneven", 0, STEPS)[0] for _ in range(2))
    assert_bit_equal(one, other)


def step_with_infinite_advantage(trainer: Trainer) -> str:
    sequences = [replace(s, advantage=math.inf) for s in batch_of(0)]
    with pytest.raises(PartFailed) as failure:
        trainer.step(Share(0, (micro_batch(sequences),)))
    return failure.value.what


def test_a_loss_that_is_not_finite_stops_the_rank(model: Path, tmp_path: Path) -> None:
    (what,) = run_ranks(step_with_infinite_advantage, config_for(model, 0), 1, tmp_path)
    assert what.startswith("step 0: loss")


def test_a_port_in_use_is_named(model: Path, tmp_path: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        master = busy.getsockname()
        with pytest.raises(PartFailed, match=str(master[1])):
            Trainer(config_for(model, 0), rank=0, world=1, master=master, folder=tmp_path)


def test_an_accelerator_other_than_that_of_the_placement_is_refused(model: Path, tmp_path: Path) -> None:
    config = replace(config_for(model, 0), cluster=ClusterConfig(placement="disjoint"))
    with pytest.raises(PartFailed, match="DeepSpeed chose cpu") as failure:
        Trainer(config, rank=0, world=1, master=("127.0.0.1", 1), folder=tmp_path)
    assert failure.value.hint.startswith("DS_ACCELERATOR=cuda")


def test_an_incomplete_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=r"trainer\.json"):
        read_manifest(tmp_path, dtype="float32")


def test_log_probs_do_not_depend_on_padding(model: Path) -> None:
    policy = load_policy(model)
    sequences = batch_of(0)
    with torch.no_grad():
        together = answer_scores(policy, micro_batch(sequences))
        alone = [answer_scores(policy, micro_batch([s])) for s in sequences]
        tokens = torch.tensor(np.concatenate([sequences[0].prompt, sequences[0].answer]), dtype=torch.long)
        logits = policy.model(tokens[None]).logits[0]
        whole = logits.log_softmax(-1)[:-1].gather(1, tokens[1:, None])[:, 0]
        every = logits[len(sequences[0].prompt) - 1 : -1].log_softmax(-1)
    torch.testing.assert_close(together.logprobs, torch.cat([a.logprobs for a in alone]), rtol=0, atol=2e-6)
    torch.testing.assert_close(together.entropy, torch.cat([a.entropy for a in alone]), rtol=0, atol=5e-6)
    torch.testing.assert_close(alone[0].entropy, -(every.exp() * every).sum(-1), rtol=0, atol=5e-6)
    full = [np.concatenate([s.prompt, s.answer]) for s in sequences]
    scored = score(policy, full, tokens=40)
    assert [len(s) for s in scored] == [len(f) - 1 for f in full]
    np.testing.assert_allclose(scored[0], whole.numpy(), atol=2e-6)


@pytest.mark.parametrize("bonus", [False, True])
def test_sparing_memory_changes_neither_scores_nor_gradients(model: Path, bonus: bool) -> None:
    """And the largest tensor that is kept for the backward pass is the input of a layer, no longer the logits."""
    batch = micro_batch(batch_of(0))
    found, largest = [], []
    for sparing in (False, True):
        policy = load_policy(model, entropy_gradient=bonus, head_parts=1 + 3 * sparing, checkpoint_activations=sparing)
        weights = {p.untyped_storage().data_ptr() for p in policy.parameters()}
        kept: list[int] = []

        def pack(tensor: torch.Tensor, weights: set[int] = weights, kept: list[int] = kept) -> torch.Tensor:
            if tensor.untyped_storage().data_ptr() not in weights:
                kept.append(tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            scores = answer_scores(policy, batch)
        total = scores.logprobs.sum() + (scores.entropy.sum() if bonus else 0.0)
        gradient = torch.autograd.grad(total, list(policy.parameters()))
        found.append((scores.logprobs.detach(), scores.entropy.detach(), torch.cat([g.flatten() for g in gradient])))
        largest.append(max(kept))
    for plain, spared in zip(*found, strict=True):
        torch.testing.assert_close(spared, plain, rtol=1e-4, atol=1e-5)
    lengths = batch.prompt_lengths + batch.answer_lengths
    assert largest == [len(batch.logprobs) * VOCABULARY, SEQUENCES * (int(lengths.max()) - 1) * HIDDEN]


def test_log_probs_do_not_depend_on_whether_a_prompt_is_shared(model: Path) -> None:
    """Two rows of two answers and one of one; gradients, too."""
    policy = load_policy(model)
    one, two = batch_of(0)[:2]
    batch = micro_batch([replace(s, prompt=p.prompt) for p in (one, two) for s in (one, two)] + [one])
    found, rows = [], []

    def scorer(**given: torch.Tensor) -> TokenScores:
        rows.append(len(given["input_ids"]))
        scores: TokenScores = policy(**given)
        return scores

    for counts in ((1, 1, 1, 1, 1), (2, 2, 1)):
        scores = answer_scores(scorer, replace(batch, rows=np.array(counts, np.int32)))
        gradient = torch.autograd.grad(scores.logprobs.sum(), list(policy.parameters()))
        found.append((scores.logprobs.detach(), scores.entropy, torch.cat([g.flatten() for g in gradient])))
    (logprobs, entropy, gradients), shared = found
    assert rows == [5, 3]
    torch.testing.assert_close(shared[0], logprobs, rtol=0, atol=5e-6)
    torch.testing.assert_close(shared[1], entropy, rtol=0, atol=1e-5)
    torch.testing.assert_close(shared[2], gradients, rtol=1e-3, atol=1e-4)


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(PartFailed, match=r"config\.json"):
        load_policy(tmp_path / "nowhere")


def test_a_micro_batch_without_a_prompt_is_refused(model: Path) -> None:
    whole = micro_batch(batch_of(0)[:1])
    bare = MicroBatch(
        whole.tokens, whole.prompt_lengths * 0, whole.prompt_lengths + whole.answer_lengths,
        whole.logprobs, whole.staleness, whole.advantages, whole.weights, whole.rows,
    )  # fmt: skip
    with pytest.raises(ValueError, match="prompt token"):
        answer_scores(load_policy(model), bare)
