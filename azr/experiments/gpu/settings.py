"""The settings of a check: tiny on a CPU, the published shape on a GPU."""

from __future__ import annotations

from pathlib import Path

from azr.experiments.gpu.claims import Request

PRESET = "tiny.yaml"
QUIET = ("eval.tasks=0", "eval.harder=0", "seeds.tasks=0", "logging.view=plain", "logging.wandb=disabled")
# Answers of random weights are all wrong, so that advantages are 0; the entropy bonus gives every step a gradient.
MOVING = ("learner.entropy_bonus=0.01", "learner.warmup_steps=1")
_CPU = (
    "cluster.placement=cpu",
    "model.dtype=float32",
    "engine.max_model_len=256",
    "engine.max_tokens=24",
    "engine.kv_cache_gib=0.1",
    "algorithm.proposals=2",
    "algorithm.solves=1",
    "algorithm.samples=2",
    "algorithm.solve_samples=2",
    "algorithm.train_mc=2",
    "learner.micro_batch_tokens=1024",
    "learner.probe_tolerance=0.001",
)
_GPU = (
    "cluster.placement=shared",
    "cluster.cpus=12",
    "cluster.memory_gib=48",  # a virtual machine may have less until it is used
    "cluster.start_timeout=400",
    "cluster.placement_timeout=120",  # the first process compiles Ray's modules where nobody has imported them yet
    "model.dtype=bfloat16",
    "engine.kind=async",
    "engine.max_model_len=1536",
    "engine.max_tokens=512",
    "engine.max_num_seqs=256",
    "engine.episodes=256",
    "engine.kv_cache_gib=8",
    "algorithm.proposals=8",
    "algorithm.solves=4",
    "algorithm.samples=4",
    "algorithm.solve_samples=4",
    "algorithm.train_mc=4",
    "learner.packing=true",
    "learner.micro_batch_tokens=16384",
    "learner.head_tokens=8192",
    "learner.lr=1e-6",
    "learner.probe_tolerance=0.5",  # docs/precision.md
)


def settings(request: Request, model: Path, *more: str) -> list[str]:
    """key=value for load(PRESET, …); later ones win."""
    return [*QUIET, f"model.path={model}", "model.build=false", *(_GPU if request.on_gpu else _CPU), *more]
