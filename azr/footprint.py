"""Which processes a run starts and about how much host memory each takes. Pure arithmetic over configuration and shape.

Base figures are resident sizes measured with the tiny model on CPU, imports included; what grows with the model is
added by formula. An estimate: activations and fragmentation vary. Of a run that is meant for GPUs (cluster.placement)
it is what stays in host memory beside them, with CUDA_HOST as an allowance; azr/memory.py has the rest.
"""

from __future__ import annotations

from dataclasses import dataclass

from azr.memory import GIB, WIDTHS, entropy, float32_head, mask, offloaded, reference, snapshots, staged, states, update
from azr.model_folder import Shape
from azr.part import CPUS
from common.config import Config

MIB = 1 << 20
NUMBER = WIDTHS["float32"]  # what is trained and served on CPU

RAY = 800 * MIB  # its dozen processes together
DRIVER = 150 * MIB
INTAKE = 150 * MIB
ANALYSIS = 100 * MIB
SHARD = 120 * MIB
CHECKER = 20 * MIB
FORK_SERVER = 15 * MIB
SIDES = 2  # per shard, each a fast and a slow fork server: a program each, in the slow one twice as large
ENGINE = 800 * MIB
TRAINER = 500 * MIB
CUDA_HOST = 3 * GIB  # more, of a process that uses a GPU: an allowance

# Activations, as if all were kept for the backward pass: about so many vectors of the hidden size per token and layer.
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
    engine, executor = config.engine, config.executor
    ray = () if config.cluster.address else (Process("ray", 1, RAY, 0.1, "head, raylet and agents, summed"),)
    gpu, trains = on_gpus(config), config.learner.trainers > 0
    return (
        Process("driver", 1, DRIVER, 0.0, "azr train: starts and watches the others, live view"),
        *ray,
        Process("intake", 1, INTAKE, 0.2, "leases, admission, task book, journal, batches"),
        *([Process("analysis", 1, ANALYSIS, 0.1, "figures of trained batches, niced and confined")] if trains else ()),
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
            "vLLM engine's host side, staged weights"
            if gpu
            else f"vLLM engine, weights, staged weights, {engine.kv_cache_gib:g} GiB of KV cache",
        ),
        *(_trainers(config, shape, gpu) if trains else ()),
    )


def on_gpus(config: Config) -> bool:
    """Whether learner and engines are meant for GPUs."""
    return config.cluster.placement != "cpu"


def _trainers(config: Config, shape: Shape, gpu: bool) -> tuple[Process, ...]:
    learner = config.learner
    cores = float(learner.threads)
    if not gpu:
        what = f"DeepSpeed ZeRO-{learner.zero_stage} rank: weights, gradients, AdamW, activations"
        return (Process("trainer", learner.ranks, trainer_memory(config, shape), cores, what),)
    first = Process("trainer", 1, trainer_memory(config, shape), cores, "rank 0's host side: versions kept for pushes")
    # All ranks read the whole model when they start, and no version is kept yet: only the larger of both counts.
    weights = shape.parameters * _width(config)
    more = max(0, learner.ranks * weights - snapshots(shape.parameters, _width(config), config.carrier))
    rest = learner.ranks - 1
    host = TRAINER + CUDA_HOST + (more // rest if rest else 0) + _offloaded(config, shape)
    others = Process("trainer", rest, host, cores, "host sides of the other ranks; all read the model at first")
    return (first, others) if rest else (first,)


def actor_memory(config: Config, shape: Shape) -> int:
    """On CPU weights are there twice: those in use and those staged for the next push."""
    push = staged(shape.parameters, _width(config), config.carrier)
    if on_gpus(config):
        return ENGINE + config.engine.tensor_parallel * CUDA_HOST + push
    return ENGINE + shape.parameters * NUMBER + push + int(config.engine.kv_cache_gib * GIB)


def trainer_memory(config: Config, shape: Shape) -> int:
    """Of rank 0, the largest: it alone keeps copies of the weights for pushes."""
    learner = config.learner
    push = snapshots(shape.parameters, _width(config), config.carrier)
    if on_gpus(config):
        return TRAINER + CUDA_HOST + push + _offloaded(config, shape)
    per_token = _ACTIVATIONS * shape.layers * shape.hidden + _LOGITS * shape.vocabulary
    width = _width(config)
    sizes = (shape.parameters, learner.zero_stage, learner.ranks, width)
    backward = learner.micro_batch_tokens * per_token * NUMBER
    backward += sum(term.bytes for term in entropy(shape, learner.micro_batch_tokens, learner.entropy_bonus))
    backward += sum(term.bytes for term in mask(learner.micro_batch_tokens, NUMBER, shared=learner.share_prompts))
    backward += sum(term.bytes for term in float32_head(shape, width, computed=learner.head_float32))
    offload = learner.offload_optimizer
    held = (*states(*sizes, offload=offload), *reference(shape.parameters, width, learner.kl))
    together = TRAINER + sum(term.bytes for term in held) + max(backward, update(*sizes, offload=offload)[0]) + push
    return together + _offloaded(config, shape)


def checkpoint_bytes(config: Config, shape: Shape) -> int:
    """On disk at most: those kept and the one being written; weights, and in float32 AdamW moments and masters."""
    if not config.learner.trainers:
        return 0
    width = _width(config)
    states = (2 if width == NUMBER else 3) * NUMBER
    return (config.learner.keep_checkpoints + 1) * (width + states) * shape.parameters


def _offloaded(config: Config, shape: Shape) -> int:
    """Host memory of a trainer rank for what is offloaded from its device; on a CPU it is all the same memory."""
    learner = config.learner
    sizes = (shape.parameters, learner.zero_stage, learner.ranks, _width(config))
    return sum(term.bytes for term in offloaded(*sizes)) if learner.offload_optimizer else 0


def requested_cpus(config: Config) -> float:
    """Logical CPUs that all processes of a run ask Ray for."""
    counts = {"executor": config.executor.shards, "trainer": config.learner.trainers, "actor": config.engine.actors}
    return CPUS["intake"] + sum(CPUS[role] * count for role, count in counts.items())


def _width(config: Config) -> int:
    return WIDTHS.get(config.model.dtype, NUMBER)
