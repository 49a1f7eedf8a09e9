"""Which processes a run starts and about how much memory each takes. Pure arithmetic over a configuration and a shape.

Base figures are resident sizes measured with the tiny model on CPU, imports included; what grows with the model is
added by formula. An estimate: activations and fragmentation vary.
"""

from __future__ import annotations

from dataclasses import dataclass

from azr.model_folder import Shape
from common.config import Config

# Logical CPUs that a process of a role asks Ray for: fractions, so that a small run fits two.
CPUS = {"intake": 0.1, "executor": 0.1, "trainer": 0.3, "actor": 0.3}

MIB = 1 << 20
GIB = 1 << 30
NUMBER = 4  # bytes of a float32: what is trained and served on CPU

RAY = 800 * MIB  # its dozen processes together
DRIVER = 150 * MIB
INTAKE = 150 * MIB
SHARD = 120 * MIB
CHECKER = 20 * MIB
FORK_SERVER = 15 * MIB
SIDES = 2  # per shard, each a fast and a slow fork server: a program each, in the slow one twice as large
ENGINE = 800 * MIB
TRAINER = 500 * MIB

# Activations kept for the backward pass: about so many vectors of the hidden size per token and layer.
_ACTIVATIONS = 20
# Logits of the answer tokens, their softmax and its gradient.
_LOGITS = 3


@dataclass(frozen=True, slots=True)
class Process:
    """`count` equal processes of `memory` bytes each; `cores` is what one keeps busy while the run is under way."""

    name: str
    count: int
    memory: int
    cores: float
    what: str


def processes(config: Config, shape: Shape) -> tuple[Process, ...]:
    """Everything that a run of `config` starts, in the order of starting."""
    engine, executor, learner = config.engine, config.executor, config.learner
    ray = () if config.cluster.address else (Process("ray", 1, RAY, 0.1, "head, raylet and agents, summed"),)
    return (
        Process("driver", 1, DRIVER, 0.0, "azr train: starts and watches the others, live view"),
        *ray,
        Process("intake", 1, INTAKE, 0.2, "leases, admission, task book, journal, batches"),
        Process(
            "executor",
            executor.shards,
            SHARD + CHECKER + SIDES * (2 * FORK_SERVER + 3 * executor.memory_mb * MIB),
            0.2,
            f"shard, checker, {2 * SIDES} fork servers with a program each, {executor.memory_mb} MiB at first",
        ),
        Process(
            "actor",
            engine.actors,
            actor_memory(config, shape),
            float(engine.threads),
            f"vLLM engine, weights, staged weights, {engine.kv_cache_gib:g} GiB of KV cache",
        ),
        Process(
            "trainer",
            learner.ranks,
            trainer_memory(config, shape),
            float(learner.threads),
            f"DeepSpeed ZeRO-{learner.zero_stage} rank: weights, gradients, AdamW, activations",
        ),
    )


def actor_memory(config: Config, shape: Shape) -> int:
    """Weights are there twice: those in use and those staged for the next push."""
    return ENGINE + 2 * shape.parameters * NUMBER + int(config.engine.kv_cache_gib * GIB)


def trainer_memory(config: Config, shape: Shape) -> int:
    """Of rank 0, the largest: it alone keeps a copy of the weights for the next push, once as tensors, once flat."""
    learner = config.learner
    states = shape.parameters * NUMBER * _states(learner.zero_stage, learner.ranks)
    snapshot = 2 * shape.parameters * NUMBER
    per_token = _ACTIVATIONS * shape.layers * shape.hidden + _LOGITS * shape.vocabulary
    return TRAINER + int(states) + snapshot + learner.micro_batch_tokens * per_token * NUMBER


def _states(stage: int, ranks: int) -> float:
    """Numbers per parameter and rank. DeepSpeed's stages 1 to 3 keep a master copy of the part a rank updates, also
    in float32; stages 1 and 2 gather whole gradients, since a step reduces them once, at its end."""
    weights, gradients, master, moments = 1.0, 1.0, 1.0, 2.0
    if stage == 0:
        return weights + gradients + moments
    if stage < 3:
        return weights + gradients + (gradients + master + moments) / ranks
    return (weights + gradients + master + moments) / ranks


def checkpoint_bytes(config: Config, shape: Shape) -> int:
    """On disk at most: those kept and the one being written; weights and both AdamW moments each."""
    return (config.learner.keep_checkpoints + 1) * 3 * shape.parameters * NUMBER


def requested_cpus(config: Config) -> float:
    """Logical CPUs that all processes of a run ask Ray for."""
    counts = {"executor": config.executor.shards, "trainer": config.learner.ranks, "actor": config.engine.actors}
    return CPUS["intake"] + sum(CPUS[role] * count for role, count in counts.items())
