"""Figures of a training step by hand, on one rank; that ranks agree is shown in test_trainer_real.py."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator

import pytest
import torch
import torch.distributed as dist

from learner.policy import ENTROPY_ELEMENTS, entropy
from learner.step_metrics import BUCKETS, StepMetrics


@pytest.fixture(scope="module", autouse=True)
def one_rank(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    hook = sys.excepthook  # torch puts one of its own in its place, for good
    store = tmp_path_factory.mktemp("group") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()
    sys.excepthook = hook


def add(metrics: StepMetrics, ratios: list[float], ages: list[int], clipped: list[float], sequences: int = 1) -> None:
    """Tokens of behaviour probability 1/4 with these ratios."""
    old = torch.full((len(ratios),), math.log(0.25))
    now = old + torch.tensor(ratios).log()
    staleness = torch.tensor(ages, dtype=torch.int32)
    metrics.add(torch.tensor(0.5), now, old, staleness, {"clipped": torch.tensor(clipped)}, staleness == 0, sequences)


def test_by_hand() -> None:
    metrics = StepMetrics()
    add(metrics, [1.0, 2.0], [0, 4], [0.0, 1.0], sequences=2)
    add(metrics, [0.5, 0.5], [3, 9], [0.0, 0.0])
    found = metrics.reduced()
    # ratios 1, 2, ½, ½: mean 1, squares 1 + 4 + ¼ + ¼ = 5½, so (Σr)² / (N Σr²) = 16 / 22
    expected = {
        "loss": 1.0, "sequences": 3.0, "tokens": 4.0, "clipped": 0.25, "ratio_mean": 1.0, "ratio_max": 2.0,
        "log_ratio_max": math.log(2), "effective_sample_size": 16 / 22, "kl": math.log(2) / 4,
        "log_ratio_mean": 0.75 * math.log(2), "mismatch": 0.0, "fresh_tokens": 1.0,
        "surprisal": -math.log(0.25) + math.log(2) / 4,
        "staleness_0/ratio_mean": 1.0, "staleness_0/log_ratio_max": 0.0, "staleness_0/effective_sample_size": 1.0,
        # ratios 2 and ½: mean 1¼, 6¼ / (2 · 4¼)
        "staleness_3-4/tokens": 2.0, "staleness_3-4/ratio_mean": 1.25, "staleness_3-4/ratio_max": 2.0,
        "staleness_3-4/effective_sample_size": 6.25 / 8.5, "staleness_3-4/clipped": 0.5, "staleness_3-4/kl": 0.0,
        "staleness_9+/ratio_max": 0.5, "staleness_9+/log_ratio_max": math.log(2), "staleness_9+/clipped": 0.0,
    }  # fmt: skip
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert {n.partition("/")[0] for n in found if "/" in n} == {"staleness_0", "staleness_3-4", "staleness_9+"}


@pytest.mark.parametrize(
    ("age", "bucket"), [(0, "0"), (1, "1"), (2, "2"), (3, "3-4"), (4, "3-4"), (5, "5-8"), (8, "5-8"), (9, "9+")]
)  # fmt: skip
def test_buckets_of_staleness(age: int, bucket: str) -> None:
    metrics = StepMetrics()
    add(metrics, [1.0], [age], [0.0])
    found = metrics.reduced()
    assert {b: found.get(f"staleness_{b}/tokens", 0.0) for b in BUCKETS} == {b: float(b == bucket) for b in BUCKETS}


def test_a_padding_micro_batch_names_the_sums_and_changes_none() -> None:
    with_padding, without = StepMetrics(), StepMetrics()
    add(with_padding, [4.0], [0], [1.0], sequences=0)
    for metrics in (with_padding, without):
        add(metrics, [2.0, 0.5], [0, 1], [1.0, 0.0], sequences=2)
    assert with_padding.reduced() == without.reduced()
    idle = StepMetrics()
    add(idle, [4.0], [0], [1.0], sequences=0)
    found = idle.reduced()
    assert (found["tokens"], found["sequences"], found["loss"], found["ratio_max"]) == (0.0, 0.0, 0.0, 0.0)


def test_mismatch_is_of_fresh_tokens_alone() -> None:
    metrics = StepMetrics()
    add(metrics, [2.0, 4.0, 1.0], [0, 1, 0], [0.0, 0.0, 0.0])
    found = metrics.reduced()
    assert found["fresh_tokens"] == 2.0
    assert found["mismatch"] == pytest.approx(math.log(2) / 2)
    assert found["staleness_1/log_ratio_mean"] == pytest.approx(2 * math.log(2))
    stale = StepMetrics()
    add(stale, [2.0], [1], [0.0])
    assert stale.reduced()["mismatch"] == 0.0


def test_entropy_by_hand_and_in_parts() -> None:
    uniform, certain = torch.full((1, 4), 0.25).log(), torch.tensor([[0.0, -200.0, -200.0, -200.0]])
    mixed = torch.tensor([[0.5, 0.25, 0.125, 0.125]]).log()
    found = entropy(torch.cat([uniform, certain, mixed]))
    assert found.tolist() == pytest.approx([math.log(4), 0.0, 1.75 * math.log(2)])
    wide = torch.randn(3, ENTROPY_ELEMENTS // 2 - 1, generator=torch.Generator().manual_seed(0)).log_softmax(-1)
    torch.testing.assert_close(entropy(wide), -(wide.exp() * wide).sum(-1), rtol=1e-4, atol=1e-4)


def test_entropy_takes_no_gradient_and_leaves_that_of_log_probs_alone() -> None:
    logits = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    logprobs = logits.log_softmax(-1)
    assert not entropy(logprobs.detach()).requires_grad
    torch.autograd.backward(logprobs[0, 2])
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.tensor([[0.0, 0.0, 1.0]]) - logits.detach().softmax(-1))
