"""Bytes by formula, against numbers worked by hand, what torch holds on CPU, and what one GPU was seen to hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config

from azr import architecture
from azr.architecture import Architecture
from azr.gpu_needs import lacking, lines, needs
from azr.gpus import parse
from azr.memory import (
    GIB,
    VERSIONS,
    Need,
    Term,
    activations,
    cached,
    engine,
    layer_bytes,
    learner,
    logits,
    offloaded,
    sequences,
    snapshots,
    staged,
    states,
    update,
)
from azr.model_folder import Shape
from common.config import Config, load
from common.errors import PartFailed
from learner.snapshots import KEPT

SMALL = Architecture(
    Shape(parameters=0, layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, vocabulary=100, positions=64), 160
)
# The model and the two steps of docs/presets.md, "Held against a GPU".
HALF = Architecture(
    Shape(494_032_768, layers=24, hidden=896, heads=14, kv_heads=2, head_dim=64, vocabulary=151_936, positions=4096),
    4864,
)


def half(*overrides: str) -> Config:
    return load("tiny.yaml", ["model.dtype=bfloat16", "cluster.placement=disjoint", "learner.zero_stage=2", *overrides])


def built(model: Architecture, dtype: torch.dtype = torch.float32, **changes: Any) -> Any:
    """A real transformers model of this architecture, with random weights."""
    shape = model.shape
    family = LlamaConfig if "llama" in model.repository else Qwen2Config
    sizes = {
        "num_hidden_layers": shape.layers,
        "hidden_size": shape.hidden,
        "intermediate_size": model.feed_forward,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "vocab_size": shape.vocabulary,
        "max_position_embeddings": shape.positions,
        **changes,
    }
    return AutoModelForCausalLM.from_config(family(**sizes), dtype=dtype, attn_implementation="sdpa")


def kept(layers: int, dtype: torch.dtype, rows: int, columns: int) -> int:
    """Bytes that autograd keeps of the decoder for a backward pass, weights aside; each storage once."""
    model = built(SMALL, dtype, num_hidden_layers=layers)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    tensors: list[torch.Tensor] = []  # kept alive, or a storage could be used for two of them

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        tensors.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.base_model(input_ids=torch.zeros(rows, columns, dtype=torch.long), use_cache=False)
    storages = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(size for pointer, size in storages.items() if pointer not in weights)


def test_states_without_zero_are_byte_for_byte_what_torch_holds() -> None:
    model = built(SMALL)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(input_ids=torch.tensor([[1, 2, 3]])).logits.sum().backward()
    optimizer.step()
    parameters = list(model.parameters())
    moments = [optimizer.state[p][key] for p in parameters for key in ("exp_avg", "exp_avg_sq")]
    held = {
        "weights": sum(p.nbytes for p in parameters),
        "gradients": sum(p.grad.nbytes for p in parameters),
        "AdamW": sum(moment.nbytes for moment in moments),
    }
    terms = states(sum(p.numel() for p in parameters), stage=0, ranks=1, width=4)
    assert {term.name: term.bytes for term in terms} == held


@pytest.mark.parametrize(
    ("stage", "ranks", "width", "bytes_per_parameter"),
    [
        (0, 1, 4, 16),
        (0, 1, 2, 18),
        (1, 1, 4, 20),
        (2, 1, 2, 18),
        (1, 2, 4, 14),
        (2, 2, 2, 12),
        (2, 4, 2, 9),
        (3, 4, 4, 5 + 4 * 0.25),  # a quarter of 4e9 parameters gathered
        (3, 4, 2, 4.5 + 2 * 0.25),
    ],
)
def test_states_per_parameter(stage: int, ranks: int, width: int, bytes_per_parameter: float) -> None:
    parameters = 4_000_000_000
    assert sum(term.bytes for term in states(parameters, stage, ranks, width)) == bytes_per_parameter * parameters


@pytest.mark.parametrize(
    ("stage", "ranks", "width", "expected"),
    [(0, 1, 4, 0), (0, 1, 2, 0), (2, 2, 4, 200), (2, 1, 2, 0), (3, 4, 2, 100)],
)
def test_an_update_adds_the_gradients_of_a_rank(stage: int, ranks: int, width: int, expected: int) -> None:
    """Where they are not in one piece: DeepSpeed's bfloat16 optimiser of stages 1 and 2 keeps them so."""
    assert update(100, stage, ranks, width)[0] == expected


@pytest.mark.parametrize(
    ("stage", "ranks", "width", "device", "host"),
    [
        (1, 1, 4, 4 + 4, 4 + 8 + 4 + 4),
        (2, 2, 2, 2 + 6, (4 + 8 + 4 + 2) / 2),
        (3, 2, 4, 2, (4 + 8 + 4 + 4) / 2),
        (3, 4, 2, 0.5, (4 + 8 + 4 + 4) / 4),
    ],
)
def test_offload_moves_masters_and_moments_to_the_host(
    stage: int, ranks: int, width: int, device: float, host: float
) -> None:
    parameters = 400
    gathered = width * parameters if stage == 3 else 0
    kept = sum(term.bytes for term in states(parameters, stage, ranks, width, offload=True))
    assert (kept - gathered) / parameters == device
    assert sum(term.bytes for term in offloaded(parameters, stage, ranks, width)) / parameters == host
    # the float32 sum of the rank's gradients, made on the device before it goes to the host
    assert update(parameters, stage, ranks, width, offload=True)[0] == (800 if (stage, width) == (2, 2) else 0)


def test_a_float32_head_costs_a_copy_of_its_weights_and_their_gradient() -> None:
    sizes = "learner.micro_batch_tokens=100", "engine.max_model_len=300", "learner.head_float32=true"
    added = {t.name: t.bytes for t in learner(half(*sizes), HALF).backward}
    assert added["float32 head"] == (4 + 4) * 151_936 * 896
    exact = learner(half(*sizes, "model.dtype=float32"), HALF).backward
    assert "float32 head" not in {term.name for term in exact}


@pytest.mark.parametrize(("dtype", "width"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_a_layer_keeps_exactly_what_autograd_keeps(dtype: torch.dtype, width: int) -> None:
    rows, columns = 3, 50
    difference = kept(3, dtype, rows, columns) - kept(2, dtype, rows, columns)
    assert difference == layer_bytes(SMALL, width) * rows * columns


def test_activations_by_hand() -> None:
    # 2 (4·64 + 4) for norms, 2 (4·64 + 2·6·16 + 4·160) in bfloat16, 4·4 for the softmax
    layer = 520 + 2 * (256 + 192 + 640) + 16
    head = 4 * 64 + 4 + 2 * 2 * 64
    assert layer_bytes(SMALL, 2) == layer == 2712
    assert activations(SMALL, 10, 2, checkpointing=False) == 10 * (2 * layer + head)
    assert activations(SMALL, 10, 2, checkpointing=True) == 10 * (2 * 2 * 64 + layer + head)


def test_a_step_was_seen_to_hold_about_as_much_on_a_gpu() -> None:
    """Peaks of torch's allocator in GiB, one H200, bfloat16, one rank; with and without all logits at once."""
    fixed = (2 + 2 + 12) * HALF.shape.parameters  # that program added gradients up in bfloat16
    for tokens, softmax_tokens, seen in ((8 * 2048, 8 * 2048, 55.5), (16 * 2048, 8192, 63.0)):
        total = fixed + activations(HALF, tokens, 2, checkpointing=False) + logits(HALF.shape, softmax_tokens)
        assert total / GIB == pytest.approx(seen, rel=0.03)


def test_a_learner_is_made_ready_for_the_longest_micro_batch() -> None:
    config = half("learner.micro_batch_tokens=100", "engine.max_model_len=300")
    terms = {term.name: term.bytes for term in learner(config, HALF).backward}
    assert terms == {
        "activations": activations(HALF, 300, 2, checkpointing=False),
        "logits": 12 * 300 * 151_936,
    }


def test_logits_are_of_as_many_tokens_as_the_head_takes_at_a_time() -> None:
    sizes = "learner.micro_batch_tokens=100", "engine.max_model_len=300", "learner.entropy_bonus=0.001"
    for limit, tokens in ((64, 64), (1000, 300)):
        terms = {t.name: t.bytes for t in learner(half(*sizes, f"learner.head_tokens={limit}"), HALF).backward}
        assert (terms["logits"], terms["entropy"]) == (12 * tokens * 151_936, 4 * tokens * 151_936)


@pytest.mark.parametrize(("changes", "each"), [((), 2 * 2), (("learner.head_float32=true",), 2 * 4)])
def test_compiled_scores_keep_the_logits_and_their_gradient(changes: tuple[str, ...], each: int) -> None:
    sizes = "learner.micro_batch_tokens=100", "engine.max_model_len=300", "learner.entropy_bonus=0.001"
    found = {t.name: t.bytes for t in learner(half(*sizes, "learner.compile=true", *changes), HALF).backward}
    assert found["logits"] == each * 300 * 151_936
    assert "entropy" not in found


def test_checkpointing_leaves_the_input_of_every_layer() -> None:
    sizes = "learner.micro_batch_tokens=100", "engine.max_model_len=300", "learner.checkpoint_activations=true"
    terms = {term.name: term.bytes for term in learner(half(*sizes), HALF).backward}
    assert terms["activations"] == activations(HALF, 300, 2, checkpointing=True)


def test_entropy_bonus_and_kl_cost_probabilities_and_the_first_weights() -> None:
    config = half("learner.micro_batch_tokens=300", "engine.max_model_len=300", "learner.entropy_bonus=0.001")
    plain = learner(half("learner.micro_batch_tokens=300", "engine.max_model_len=300"), HALF)
    need = learner(config, HALF)
    assert need.standing == plain.standing
    assert {term.name: term.bytes for term in need.backward if term not in plain.backward} == {
        "entropy": 4 * 300 * 151_936
    }
    need = learner(half("learner.kl=0.01", "engine.max_model_len=300"), HALF)
    assert {term.name: term.bytes for term in need.standing if term not in plain.standing} == {
        "reference": 2 * 494_032_768
    }


def test_shared_prompts_cost_a_mask_over_the_longest_row() -> None:
    """A sequence of its own that is longer than the budget has none."""
    sizes = "learner.micro_batch_tokens=100", "engine.max_model_len=300"
    plain = learner(half(*sizes), HALF)
    need = learner(half(*sizes, "learner.share_prompts=true"), HALF)
    added = {term.name: term.bytes for term in need.backward if term not in plain.backward}
    assert added == {"mask": (1 + 2) * 100 * 100}


def test_phases_exclude_each_other() -> None:
    standing, small, large = Term("a", 1, ""), Term("b", 2, ""), Term("c", 5, "")
    assert Need("x", 1, (standing,), backward=(small,), update=(large,)).total == 6
    assert Need("x", 1, (standing,), backward=(small, large), update=(large,)).total == 8
    assert Need("x", 1, (standing,)).total == 1


def test_an_engine_and_the_sequences_it_holds_by_hand() -> None:
    config = half("engine.kv_cache_gib=1", "engine.max_model_len=4096", "engine.actors=3")
    need = engine(config, HALF)
    assert (need.count, need.total) == (3, 2 * 2 * 494_032_768 + 5 * GIB)  # in use and staged
    # 2 · 24 layers · 2 heads · 64 · 2 bytes = 12,288 a token, 48 MiB a sequence, 21.3 of them in 1 GiB
    assert HALF.shape.kv_bytes(2) == 12_288
    assert sequences(config, HALF.shape, 2) == 21


def test_tensor_parallelism_divides_an_engine_by_hand() -> None:
    sizes = "engine.kv_cache_gib=3", "engine.max_model_len=4096", "engine.actors=2"
    parallel = "engine.kind=async", "learner.kind=none", *sizes
    need = engine(half(*parallel, "engine.tensor_parallel=2"), HALF)
    assert need.count == 4
    assert {term.name: term.bytes for term in need.terms} == {
        "weights": 494_032_768,
        "KV cache": 3 * GIB // 2,
        "reserve": 4 * GIB,
    }
    # 3 GiB hold 64 sequences of 48 MiB. On 7 GPUs two heads of keys are three times there, each on a GPU of its own.
    assert [cached(HALF.shape, 2, over) for over in (1, 2, 7)] == [12_288, 12_288, 3 * 12_288]
    assert sequences(half(*parallel, "engine.tensor_parallel=2"), HALF.shape, 2) == 64
    assert sequences(half(*parallel, "engine.tensor_parallel=7"), HALF.shape, 2) == 21


def test_a_push_through_host_memory_takes_a_copy_per_version_and_the_new_one() -> None:
    assert VERSIONS == KEPT
    assert (snapshots(100, 2), staged(100, 2)) == (800, 200)
    assert (snapshots(100, 2, "nccl"), staged(100, 2, "nccl")) == (600, 0)


@pytest.mark.parametrize(
    ("settings", "ours", "theirs"),
    [
        (("cluster.placement=disjoint",), {"versions": 4}, {"staged": 2}),
        (("cluster.placement=disjoint", "weights.delta=true"), {"versions": 4, "delta": 4}, {"staged": 2, "delta": 2}),
        (("cluster.placement=disjoint", "weights.transport=gloo"), {}, {}),
        (("cluster.placement=shared",), {"versions": 4}, {}),
        (("cluster.placement=shared", "engine.actors=2", "learner.ranks=2"), {}, {}),
    ],
)
def test_what_a_push_takes_of_gpus_by_hand(
    settings: tuple[str, ...], ours: dict[str, int], theirs: dict[str, int]
) -> None:
    """Bytes per parameter, in bfloat16."""
    config, names = half(*settings), ("versions", "staged", "delta")
    for need, expected in ((learner(config, HALF), ours), (engine(config, HALF), theirs)):
        assert {t.name: t.bytes // HALF.shape.parameters for t in need.terms if t.name in names} == expected


@pytest.mark.parametrize("name", architecture.names())
def test_published_models_have_the_parameters_of_their_architecture(name: str) -> None:
    model = architecture.published(Path("anywhere") / name)
    assert model is not None and model.repository.endswith(name)
    with torch.device("meta"):
        whole = built(model, torch.bfloat16, tie_word_embeddings=name.endswith("3B"))
    assert sum(parameter.numel() for parameter in whole.parameters()) == model.shape.parameters
    assert whole.config.hidden_size // whole.config.num_attention_heads == model.shape.head_dim


def test_a_folder_must_tell_its_feed_forward_width(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"intermediate_size": 160}')
    assert architecture.read(tmp_path, SMALL.shape) == SMALL
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(PartFailed, match="intermediate_size"):
        architecture.read(tmp_path, SMALL.shape)
    assert architecture.published(tmp_path) is None


def test_gpus_are_held_against_the_needs_largest_first() -> None:
    asked = needs(half("engine.kv_cache_gib=20"), HALF)
    rank, served = asked.learner.total, asked.engine.total
    assert served > rank and asked.count == 2
    assert lacking(asked, (rank, served)) == ""
    assert "no GPU, and the run needs 2" in lacking(asked, ())
    assert "has 1 GPUs" in lacking(asked, (served,))
    assert "free" in lacking(asked, (rank, served - 1))
    assert "free" in lacking(asked, (served, rank - 1))


def test_a_shared_gpu_must_hold_rank_and_engine() -> None:
    shared = needs(half("cluster.placement=shared", "engine.actors=2"), HALF)
    rank, served = shared.learner.total, shared.engine.total
    assert (shared.count, [shared.each(bundle) for bundle in shared.plan.bundles]) == (2, [rank + served, served])
    assert lacking(shared, (served, rank + served)) == ""
    assert "free" in lacking(shared, (rank + served - 1, served))
    lack = lacking(shared, (rank,))
    assert f"1 with {(rank + served) / GIB:.1f} GiB for a rank and an engine each and 1 with" in lack
    told = lines(shared)
    assert f"  {'trainer-0 + actor-0':<32}{(rank + served) / GIB:>8.2f}" in told
    assert f"  {'actor-1':<32}{served / GIB:>8.2f}" in told


def test_an_engine_on_two_gpus_needs_both() -> None:
    asked = needs(half("engine.kind=async", "engine.tensor_parallel=2", "learner.kind=none"), HALF)
    each = asked.engine.total
    assert asked.count == 2 and lacking(asked, (each, each)) == ""
    assert "has 1 GPUs" in lacking(asked, (2 * each,))
    assert "free" in lacking(asked, (each, each - 1))
    assert f"  {'actor-0, on each of 2':<32}{each / GIB:>8.2f}" in lines(asked)


def test_the_answer_of_the_driver_is_read() -> None:
    assert parse("81559\n40000\n") == (81559 << 20, 40000 << 20)
    assert parse("[N/A]\n\n") == (0,)
    assert parse("") == ()
