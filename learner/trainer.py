"""One trainer rank: trains batches, scores sequences, hands out weights and writes checkpoints.

Invariants: `step` applies the gradient of Σ over all micro-batches of all ranks of Σ_s weights[s] · Σ_t
loss_t, whatever the division into micro-batches and ranks, at once or, by `Share.updates`, in several optimiser steps;
the learning rate depends on the number of the batch alone; on a CPU with one torch thread equal shares give bit-equal
metrics and weights, in float32 and in bfloat16.
All methods but `close` are collective: every rank calls them in the same order, `step` with equally many
micro-batches. Between calls no collective is under way, so a rank may wait for its share as long as it likes.
Not guaranteed: on a GPU two runs differ in the last digits, since attention and sums over indices add in the order in
which threads happen to come; a rank that dies inside a collective leaves the others waiting until COLLECTIVE_TIMEOUT:
whoever placed the ranks watches them and stops the rest.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from datetime import timedelta
from itertools import accumulate, pairwise
from pathlib import Path

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from torch import Tensor

from common.config import Config
from common.errors import ConfigError, PartFailed
from common.learner import LearnerConfig
from common.messages import TensorMeta
from common.types import Float32Array, Int32Array, MicroBatch, Share
from learner import checkpoint, policy
from learner.drift import DriftWatch
from learner.host_copy import finish, host_copy
from learner.objective import PADDING, Objective
from learner.step_metrics import StepMetrics
from learner.zero import Zero, skip_shared_memory_op

COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # the longest wait is that for rank 0 while it writes a checkpoint
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}  # of weights, by model.dtype
log = logging.getLogger(__name__)


def learning_rate(settings: LearnerConfig, step: int) -> float:
    """Of the batch after `step` trained ones: linear warm-up, then constant."""
    return settings.lr * min(1.0, (step + 1) / max(1, settings.warmup_steps))


class Trainer:
    """Rank `rank` of `world`; `master`: (host, port) of rank 0; `folder` is that of the run.

    Starts from the checkpoint `start` (relative paths: in `folder`) or else from the configured model. Blocks
    until all ranks are there. One per process: it owns torch's default process group.
    """

    def __init__(
        self,
        config: Config,
        *,
        rank: int,
        world: int,
        master: tuple[str, int],
        folder: Path,
        start: Path | None = None,
    ) -> None:
        if config.model.dtype not in DTYPES:
            raise ConfigError(f"model.dtype is {config.model.dtype}: the learner trains in {' or '.join(DTYPES)}")
        self.config, self.rank, self.world, self.folder = config, rank, world, folder
        self.drift = DriftWatch(config.learner, f"trainer rank {rank}")
        torch.set_num_threads(config.learner.threads)
        torch.manual_seed(config.run.seed)
        _join(rank, world, master, on_gpu=config.cluster.placement != "cpu")
        self.zero = self._build(Path(config.model.path)) if start is None else self._restored(folder / start)
        self.objective = Objective(
            config.learner,
            Path(config.model.path),
            self.zero.device,
            DTYPES[config.model.dtype],
            head_parts=_head_parts(config),
        )

    def step(self, share: Share) -> dict[str, float]:
        """Train one batch, of which `share` is this rank's part. Returns metrics of the whole batch.

        loss; grad_norm (before clipping; the largest of the optimiser steps); lr; updates (optimiser steps);
        sequences; padding (share of the positions put through the model that belong to no sequence); seconds_forward,
        seconds_backward and seconds_update, of the slowest rank. Over answer tokens: tokens (how many), entropy (of the
        trained policy, nats per token), surprisal (−log-prob, nats; estimates the entropy where on-policy), ratio_mean,
        ratio_max (trained over behaviour probability), log_ratio_mean, log_ratio_max (of |log ratio|, unbounded), kl
        (k1 estimate of behaviour from trained policy, nats), effective_sample_size (Σr)² / (N Σr²), a share of tokens,
        0–1, kl_reference if there is a reference, and the loss's own statistics (`clipped`, `masked`, `truncated`:
        shares). The same over the tokens of each staleness that occurs, as staleness_BUCKET/NAME. mismatch:
        log_ratio_mean of sequences wholly sampled by the weights that the step began with, before it changes them,
        fresh_tokens of them. PartFailed if the loss or its gradient is not finite, or a
        figure of learner/drift.py is over its limit.
        """
        metrics = StepMetrics()
        updates = _updates(share)
        lr = learning_rate(self.config.learner, share.step)
        anchors: Sequence[Sequence[Tensor | None]] = [[None] * len(batches) for batches in updates]
        if len(updates) > 1:
            with metrics.timed("forward"):
                anchors = self.objective.proximal(self.zero, updates)
        norms = [
            self._update(batches, of_batch, lr, metrics, moved=number > 0)
            for number, (batches, of_batch) in enumerate(zip(updates, anchors, strict=True))
        ]
        grad_norm = float(np.max(norms))
        values = {**metrics.reduced(), "grad_norm": grad_norm, "lr": lr, "updates": len(updates)}
        if not np.isfinite([values["loss"], grad_norm]).all():
            raise PartFailed(
                f"trainer rank {self.rank}",
                f"step {share.step}: loss {values['loss']}, gradient norm {grad_norm}",
                hint="a smaller learner.lr; the last checkpoint is untouched",
            )
        for warning in self.drift.check(share.step, values):
            if self.rank == 0:
                log.warning("%s", warning)
        return values

    def score(self, sequences: Sequence[Int32Array]) -> list[Float32Array]:
        """Log-probs of tokens 1… of each sequence, float32 [len − 1], under the weights as they are."""
        limit = self.config.learner.micro_batch_tokens
        packing = self.config.learner.packing
        return policy.score(self.zero, sequences, tokens=limit, device=self.zero.device, packing=packing)

    @property
    def tensors(self) -> tuple[TensorMeta, ...]:
        """What an engine gets of all that `weights` yields."""
        return tuple(TensorMeta(name, self.config.model.dtype, shape) for name, shape in self.zero.shapes())

    def weights(self) -> Iterator[list[tuple[str, Tensor]]]:
        """All parameters where they are trained, a bucket at a time, valid until the next; collective to its end."""
        return self.zero.weights()

    def snapshot(self) -> list[tuple[str, Tensor]]:
        """Copies in host memory of all parameters by checkpoint name, tied ones once. Empty on ranks > 0."""
        held: list[tuple[str, Tensor]] = []
        for bucket in self.zero.weights():
            if self.rank == 0:
                held += [(name, host_copy(tensor)) for name, tensor in bucket]
        finish(self.zero.device)
        return held

    def save(self, folder: Path) -> None:
        """Write a checkpoint; when this returns, on any rank, it is durable. Relative paths: in the run
        folder."""
        weights = dict(self.snapshot())
        with checkpoint.durable_folder(self.folder / folder) if self.rank == 0 else nullcontext() as partial:
            steps = self.zero.updates
            for index, states in enumerate(self.zero.states() if steps else ()):
                if partial is not None:
                    checkpoint.write_states(partial, index, states)
            if partial is not None:
                checkpoint.write_model(partial / "hf", Path(self.config.model.path), weights)
                checkpoint.write_manifest(partial, steps=steps, dtype=self.config.model.dtype)
        dist.barrier()

    def load(self, folder: Path) -> None:
        """Continue from a checkpoint; bit-equal if ranks and stage are those that wrote it."""
        self.zero.close()
        self.zero = self._restored(self.folder / folder)

    def close(self) -> None:
        self.zero.close()
        if dist.is_initialized():
            dist.destroy_process_group()

    def _build(self, model: Path) -> Zero:
        settings = self.config.learner
        trained = policy.load_policy(
            model,
            DTYPES[self.config.model.dtype],
            entropy_gradient=settings.entropy_bonus > 0,
            head_parts=_head_parts(self.config),
            head_float32=settings.head_float32,
            checkpoint_activations=settings.checkpoint_activations,
            share_prompts=settings.share_prompts,
            packing=settings.packing,
            compiled=settings.compile,
        )
        return Zero(trained, settings, world=self.world)

    def _restored(self, folder: Path) -> Zero:
        steps = checkpoint.read_manifest(folder, dtype=self.config.model.dtype)
        zero = self._build(folder / "hf")
        if steps:
            # AdamW has no moments to set before a step; one without gradient at rate 0 moves no weight.
            with zero.accumulation():
                packing = self.config.learner.packing
                scores = policy.answer_scores(zero, PADDING, zero.device, packing=packing)
                zero.backward(scores.logprobs.sum() * 0.0, last=True)
            zero.step(0.0)
            for states in checkpoint.read_states(folder):
                zero.restore_states(states)
            zero.updates = steps
        return zero

    def _update(
        self,
        batches: Sequence[MicroBatch],
        anchors: Sequence[Tensor | None],
        lr: float,
        metrics: StepMetrics,
        *,
        moved: bool,
    ) -> float:
        """One optimiser step; its gradient norm before clipping."""
        with metrics.timed("backward"), self.zero.accumulation():
            for i, (batch, anchor) in enumerate(zip(batches, anchors, strict=True)):
                with metrics.timed("forward"):
                    loss = self.objective(self.zero, batch, anchor, metrics, moved=moved)
                self.zero.backward(loss, last=i + 1 == len(batches))
        with metrics.timed("update"):
            return self.zero.step(lr)


def _head_parts(config: Config) -> int:
    """So many that none has more than learner.head_tokens, as many for every micro-batch."""
    limit = config.learner.head_tokens
    return -(-config.longest_micro_batch // limit) if limit else 1


def _updates(share: Share) -> list[tuple[MicroBatch, ...]]:
    """The micro-batches of each optimiser step."""
    batches = share.micro_batches or (PADDING,)
    ends = accumulate(share.updates or (len(batches),), initial=0)
    return [batches[begin:end] for begin, end in pairwise(ends)]


def _join(rank: int, world: int, master: tuple[str, int], *, on_gpu: bool) -> None:
    """Make this process rank `rank`: torch's default process group, DeepSpeed on top of it, and the device."""
    address = f"tcp://{master[0]}:{master[1]}"
    wanted = "cuda" if on_gpu else "cpu"
    if (chosen := get_accelerator().device_name()) != wanted:
        raise PartFailed(
            f"trainer rank {rank}",
            f"DeepSpeed chose {chosen}, but cluster.placement asks for {wanted}",
            hint=f"DS_ACCELERATOR={wanted} in the environment, before DeepSpeed is imported",
        )
    if on_gpu and not torch.cuda.is_available():
        raise PartFailed(
            f"trainer rank {rank}",
            f"torch {torch.__version__} sees no GPU",
            hint="a torch built for CUDA, and a GPU in CUDA_VISIBLE_DEVICES",
        )
    device = torch.device("cuda", 0) if on_gpu else None  # a rank sees its own GPU alone
    if device is None:
        skip_shared_memory_op()
    else:
        torch.cuda.set_device(device)
    os.environ.setdefault("LOCAL_RANK", "0")  # DeepSpeed reads it
    try:
        dist.init_process_group(
            "gloo" if device is None else "nccl",
            init_method=address,
            rank=rank,
            world_size=world,
            timeout=COLLECTIVE_TIMEOUT,
            device_id=device,
        )
    except dist.DistError as error:
        raise PartFailed(
            f"trainer rank {rank}",
            f"cannot meet the other ranks at {address}: {str(error).splitlines()[0]}",
            hint="is the port in use, or a rank missing?",
        ) from error
    deepspeed.init_distributed(dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False)
