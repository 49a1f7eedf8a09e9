"""What a learner step costs: the real Trainer on its ranks, on batches that nobody sampled (azr/bench/synthetic.py).

Every rank is a process, as in a run; batches are settled and divided by the function that the intake uses. A first step
warms up and does not count; each reading is the mean of the steps behind it. Phases are of the slowest rank, as
Trainer.step tells them. The learning rate is next to nothing: gradients of such batches would wreck the weights.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

from azr import architecture, ranks
from azr.bench import flops, synthetic
from azr.bench.figures import Reading
from azr.bench.part import Job
from azr.bench.setting import gpu_names
from azr.footprint import on_gpus
from azr.model_folder import shape
from azr.replay_ranks import BOOK
from common.config import Config
from common.errors import ConfigError
from common.types import MicroBatch, Share
from learner.preparation import prepared
from learner.step_metrics import PHASES
from learner.task_book import TaskBook

SECTION = "learner"
_STEPS, _QUICK = 3, 1  # measured
_GIB = 1 << 30


def measure(job: Job) -> list[Reading]:
    """PartFailed if a rank fails."""
    config = _still(job.config)
    if not config.learner.trainers:
        raise ConfigError("learner.kind=none: there is no learner to measure")
    folder, steps = Path(config.model.path), 1 + (_QUICK if job.quick else _STEPS)
    model = architecture.read(folder, shape(folder))
    shares = [_shares(config, step, model.shape.vocabulary, job) for step in range(steps)]
    works = [
        partial(_steps, config, rank, [step[rank] for step in shares], job.folder)
        for rank in range(config.learner.ranks)
    ]
    figures = [figures for _, figures in ranks.trained(config, works, job.folder)][1:]
    batches = [[batch for share in step for batch in share.micro_batches] for step in shares[1:]]
    return readings(config, model, batches, figures, gpu_names() if on_gpus(config) else ())


def readings(
    config: Config,
    model: architecture.Architecture,
    batches: Sequence[Sequence[MicroBatch]],
    figures: Sequence[Mapping[str, float]],
    gpus: Sequence[str],
) -> list[Reading]:
    """Of measured steps: the micro-batches of all ranks, and what rank 0 tells of each. `gpus`: their names, if any
    train."""
    done = [flops.work(step, shared=config.learner.share_prompts) for step in batches]
    seconds = sum(step["seconds"] for step in figures)
    rate = sum(flops.training(model, work) for work in done) / seconds
    found = [
        Reading(SECTION, "tokens (prompts and answers)", "tokens/s", sum(work.tokens for work in done) / seconds),
        Reading(SECTION, "answer tokens", "tokens/s", sum(work.scored for work in done) / seconds),
        Reading(SECTION, "step", "s", seconds / len(figures)),
        *[Reading(SECTION, phase, "s", fmean(step[f"seconds_{phase}"] for step in figures)) for phase in PHASES],
        Reading(SECTION, "tokens of a step", "tokens", fmean(work.tokens for work in done)),
        Reading(SECTION, "micro-batches of a rank", "", len(batches[0]) / config.learner.ranks),
        Reading(SECTION, "padding", "%", 100 * fmean(step["padding"] for step in figures)),
        Reading(SECTION, "model FLOPs", "TFLOP/s", rate / 1e12),
    ]
    peak = flops.peak(gpus[0]) if gpus and config.model.dtype == "bfloat16" else None
    if peak is not None:
        found.append(Reading(SECTION, "MFU", "%", 100 * rate / (peak * config.learner.ranks)))
    if "memory" in figures[0]:
        found.append(Reading(SECTION, "most GPU memory of rank 0", "GiB", figures[-1]["memory"] / _GIB))
    return found


def _still(config: Config) -> Config:
    """That ends for no figure of the loss and changes the weights by nothing to speak of."""
    still = dataclasses.replace(
        config.learner, lr=1e-12, warn_ess=0.0, stop_ess=0.0, warn_mismatch=0.0, stop_mismatch=0.0
    )
    return dataclasses.replace(config, learner=still)


def _shares(config: Config, step: int, vocabulary: int, job: Job) -> list[Share]:
    """Of all ranks."""
    book = TaskBook(job.folder / BOOK, (), config)
    groups = synthetic.batch(config, vocabulary, seed=1000 * job.repeat + step)
    _, shares = prepared(step, groups, config, book, ())
    book.close()
    return shares


def _steps(
    config: Config, rank: int, shares: Sequence[Share], folder: Path, master: tuple[str, int]
) -> Iterator[tuple[int, dict[str, float]]]:
    """Of one rank (azr/ranks.py)."""
    import torch

    from learner.trainer import Trainer

    trainer = Trainer(config, rank=rank, world=config.learner.ranks, master=master, folder=folder)
    for share in shares:
        began = time.perf_counter()
        figures = trainer.step(share)  # its figures are sums on the host, so the device has done its work
        figures["seconds"] = time.perf_counter() - began
        if on_gpus(config):
            figures["memory"] = float(torch.cuda.max_memory_reserved())
        yield share.step, figures
    trainer.close()
