"""The plan of `azr check` against what a trainer rank and an engine were seen to hold.

On a GPU: azr/memory.py against torch.cuda.max_memory_allocated of the trainer, and against what nvidia-smi counts for
the engine. On a CPU: azr/footprint.py against resident memory. A plan is right if it is not exceeded and does not ask
for much more than is used; allowances are counted as used. `python -m azr.experiments.gpu.check_memory`
"""

from __future__ import annotations

import sys
from pathlib import Path

from azr import architecture, footprint, memory, model_folder
from azr.experiments.gpu.claims import Record, Request, main
from azr.experiments.gpu.rank import trained
from azr.experiments.gpu.served import served
from azr.experiments.gpu.settings import PRESET, settings
from common.config import Config, load

GIB = memory.GIB
OVER = 1.1  # times the plan that may be used: what is not computed, such as buffers of kernels
SPARE = 0.3  # of the plan, beyond its allowances, that may be left


def check(record: Record, request: Request) -> None:
    """What the plan says a trainer rank and an engine need is what they use."""
    model = request.model("0.5b")
    variants = {
        "all activations kept": (),
        "sparing": ("learner.checkpoint_activations=true", "learner.head_tokens=256"),
    }
    for name, more in variants.items():
        chosen = settings(request, model, *more)
        found = trained(request, f"memory-{name.replace(' ', '-')}", chosen, steps=2)
        config = load(PRESET, chosen)
        used = found.memory if request.on_gpu else found.resident
        plan, allowance = _learner(config, model, on_gpu=request.on_gpu)
        _held(record, f"trainer, {name}", used, plan, allowance)
    chosen = settings(request, model)
    config = load(PRESET, chosen)
    engine = served(request, "memory-engine", chosen)
    plan, allowance = _engine(config, model, on_gpu=request.on_gpu)
    _held(record, "engine", engine.gpu if request.on_gpu else engine.host, plan, allowance)
    record.figure("engine, answers of full length side by side", engine.tokens / engine.seconds, "tokens/s")


def _held(record: Record, what: str, used: int, plan: int, allowance: int) -> None:
    record.figure(f"{what}: used", used / GIB, "GiB")
    record.figure(f"{what}: planned, allowance of {allowance / GIB:.1f} GiB included", plan / GIB, "GiB")
    record.claim(f"{what}: the plan is enough", 0 < used <= OVER * plan, f"{used / GIB:.2f} of {plan / GIB:.2f} GiB")
    least = (1 - SPARE) * (plan - allowance)
    record.claim(f"{what}: the plan is not idle", used >= least, f"{used / GIB:.2f}, at least {least / GIB:.2f} GiB")


def _learner(config: Config, model: Path, *, on_gpu: bool) -> tuple[int, int]:
    """(planned bytes, those of them that are allowances)."""
    shape = model_folder.shape(model)
    if not on_gpu:
        return footprint.trainer_memory(config, shape), footprint.TRAINER
    return memory.learner(config, architecture.read(model, shape)).total, memory.GPU_RESERVE


def _engine(config: Config, model: Path, *, on_gpu: bool) -> tuple[int, int]:
    shape = model_folder.shape(model)
    if not on_gpu:
        return footprint.actor_memory(config, shape), footprint.ENGINE
    return memory.engine(config, architecture.read(model, shape)).total, memory.ENGINE_RESERVE


if __name__ == "__main__":
    sys.exit(main("memory", check))
