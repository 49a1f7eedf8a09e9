"""Operations of a learner step against hand-worked numbers, against what torch counts, and MFU built on them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.architecture import Architecture, published
from azr.bench import flops, synthetic
from azr.bench.figures import Reading
from azr.bench.flops import Work, work
from azr.bench.learner import readings
from azr.model_folder import Shape
from common.config import Config, ModelConfig, load
from common.engine import EngineConfig
from common.types import MicroBatch
from tests.project import ROOT

SMALL = Architecture(
    Shape(parameters=0, layers=2, hidden=8, heads=2, kv_heads=1, head_dim=4, vocabulary=32, positions=64),
    feed_forward=16,
)


def micro_batch(*rows: tuple[int, tuple[int, ...]]) -> MicroBatch:
    """Rows of (prompt length, answer lengths)."""
    prompts = [prompt for prompt, answers in rows for _ in answers]
    answers = [answer for _, of_row in rows for answer in of_row]
    count = sum(answers)
    return MicroBatch(
        tokens=np.zeros(sum(prompts) + count, np.int32),
        prompt_lengths=np.array(prompts, np.int32),
        answer_lengths=np.array(answers, np.int32),
        logprobs=np.zeros(count, np.float32),
        staleness=np.zeros(count, np.int32),
        advantages=np.zeros(len(answers), np.float32),
        weights=np.zeros(len(answers), np.float32),
        rows=np.array([len(of_row) for _, of_row in rows], np.int32),
    )


def test_work_of_one_sequence() -> None:
    """Prompt a a a, answer b c: c is only a target, and the four others see 1 + 2 + 3 + 4 positions."""
    assert work([micro_batch((3, (2,)))]) == Work(tokens=5, positions=4, scored=2, pairs=10)


def test_a_shared_prompt_counts_once() -> None:
    """Prompt of 3 (1 + 2 + 3 pairs), answers of 2 (4) and of 3 (4 + 5) behind it."""
    assert work([micro_batch((3, (2, 3)))], shared=True) == Work(tokens=8, positions=6, scored=5, pairs=19)


def test_sequences_packed_into_a_row_are_each_by_themselves() -> None:
    packed, apart = micro_batch((3, (2, 3))), micro_batch((3, (2,)), (3, (3,)))
    assert work([packed]) == work([apart]) == Work(tokens=11, positions=9, scored=5, pairs=10 + 15)


def test_an_empty_micro_batch_is_no_work() -> None:
    assert work([micro_batch(), micro_batch()]) == Work(0, 0, 0, 0)


@given(st.lists(st.tuples(st.integers(1, 9), st.lists(st.integers(1, 9), min_size=1, max_size=4).map(tuple))))
def test_pairs_are_those_that_a_mask_would_show(rows: list[tuple[int, tuple[int, ...]]]) -> None:
    pairs = 0
    for prompt, answers in rows:
        pairs += sum(range(1, prompt + 1))
        pairs += sum(prompt + seen for answer in answers for seen in range(1, answer))
    found = work([micro_batch(*rows)], shared=True)
    assert found.pairs == pairs
    assert found == work([micro_batch(row) for row in rows], shared=True)


def test_operations_by_hand() -> None:
    """Per layer 8 · (2·8 + 2·4 + 3·16) = 576 parameters; forward 2·1152·4 + 4·2·2·4·10 + 2·8·32·2 = 10,880."""
    assert flops.layer_parameters(SMALL) == 1152
    assert flops.training(SMALL, Work(tokens=5, positions=4, scored=2, pairs=10)) == 3 * 10_880


def test_long_sequences_come_to_the_rule_of_six_per_parameter() -> None:
    """6·P + 12·layers·heads·head_dim·S/2 operations a token, of a published model at 4,096 tokens."""
    model = published_3b()
    shape, length = model.shape, 4096
    per_token = flops.training(model, work([micro_batch((1, (length,)))])) / length
    head = shape.hidden * shape.vocabulary
    rule = 6 * (flops.layer_parameters(model) + head) + 12 * shape.layers * shape.heads * shape.head_dim * length / 2
    assert per_token == pytest.approx(rule, rel=1e-3)
    # Tied: the matrix of head and embedding is one. What is left are biases and norms.
    assert flops.layer_parameters(model) + head == pytest.approx(shape.parameters, rel=1e-3)


def published_3b() -> Architecture:
    model = published(Path("Qwen2.5-Coder-3B"))
    assert model is not None
    return model


def test_torch_counts_the_same() -> None:
    """Eager attention makes all pairs, whatever the mask hides."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape, length = SMALL.shape, 6
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=shape.vocabulary,
            hidden_size=shape.hidden,
            intermediate_size=SMALL.feed_forward,
            num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads,
            attn_implementation="eager",
            tie_word_embeddings=True,
        )
    )
    with FlopCounterMode(display=False) as counter:
        logits = model(input_ids=torch.arange(length)[None], use_cache=False).logits
        torch.autograd.backward(logits.sum())
    expected = flops.training(SMALL, Work(length, positions=length, scored=length, pairs=length**2))
    assert counter.get_total_flops() == expected


@pytest.mark.parametrize(
    ("device", "teraflops"),
    [
        ("NVIDIA H200", 989.0),
        ("NVIDIA H100 80GB HBM3", 989.0),
        ("NVIDIA H100 PCIe", 756.0),
        ("NVIDIA GH200 480GB", 989.0),
        ("NVIDIA A100-SXM4-80GB", 312.0),
    ],
)
def test_peaks_go_by_the_name_of_the_device(device: str, teraflops: float) -> None:
    assert flops.peak(device) == teraflops * 1e12


def test_an_unknown_device_has_no_peak() -> None:
    assert flops.peak("Tesla V100-SXM2-16GB") is None


def a_config(dtype: str = "float32") -> Config:
    return Config(model=ModelConfig(dtype=dtype), engine=EngineConfig(max_model_len=96, max_tokens=32))


def by_name(found: list[Reading]) -> dict[str, float]:
    return {reading.what: reading.value for reading in found}


def test_rates_are_over_the_seconds_of_all_steps() -> None:
    steps = [[micro_batch((3, (2,)))]] * 2
    figures = [
        {"seconds": seconds, "seconds_forward": 1.0, "seconds_backward": 2.0, "seconds_update": 0.5, "padding": padding}
        for seconds, padding in ((4.0, 0.5), (6.0, 0.0))
    ]
    found = by_name(readings(a_config(), SMALL, steps, figures, ()))
    assert found["tokens (prompts and answers)"] == 1.0 and found["answer tokens"] == 0.4
    assert found["step"] == 5.0 and found["backward"] == 2.0
    assert found["padding"] == 25.0
    assert found["model FLOPs"] == pytest.approx(6 * 10_880 / 10 / 1e12)
    assert "MFU" not in found


def test_mfu_is_of_all_ranks_and_in_bfloat16_alone() -> None:
    phases = {"seconds_forward": 0.0, "seconds_backward": 0.0, "seconds_update": 0.0}
    figures = [{"seconds": 1e-9, "padding": 0.0, **phases}]
    steps = [[micro_batch((3, (2,)))]]
    found = by_name(readings(a_config("bfloat16"), SMALL, steps, figures, ["NVIDIA H200"]))
    assert found["MFU"] == pytest.approx(100 * 3 * 10_880 / 1e-9 / 989e12)
    assert "MFU" not in by_name(readings(a_config(), SMALL, steps, figures, ["NVIDIA H200"]))
    assert "MFU" not in by_name(readings(a_config("bfloat16"), SMALL, steps, figures, ["a new one"]))


def test_a_synthetic_batch_has_the_sequences_of_a_run_and_fits_its_engine() -> None:
    config = load(ROOT / "configs" / "tiny.yaml", ["algorithm.train_mc=4"])
    groups, again = (synthetic.batch(config, 300, seed) for seed in (1, 1))
    algorithm = config.algorithm
    expected = 3 * (algorithm.proposals * (1 + 4) + algorithm.solves * algorithm.solve_samples)
    samples = [(group.prompts[0], sample) for group in groups for sample in group.samples]
    assert len(samples) == expected
    for prompt, sample in samples:
        assert 0 < len(sample.tokens) <= config.engine.max_tokens
        assert len(prompt) + len(sample.tokens) <= config.engine.max_model_len
        assert sample.tokens.min() >= 0 and sample.tokens.max() < 300
    lengths = [len(sample.tokens) for _, sample in samples]
    assert lengths == [len(sample.tokens) for group in again for sample in group.samples]
    assert 0 < sum(length == config.engine.max_tokens for length in lengths) < expected / 4
    assert lengths != [len(s.tokens) for group in synthetic.batch(config, 300, 2) for s in group.samples]
