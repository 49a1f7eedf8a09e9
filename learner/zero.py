"""DeepSpeed ZeRO behind the five verbs a trainer needs: forward, backward, step, read and restore.

DeepSpeed divides gradients by the number of ranks; the loss is multiplied by it, so what is applied is the
exact sum over all backward calls of all ranks. Stages 0–2 reduce once per step: every rank holds all
parameters there and can hold their gradients as well. Stage 3 reduces in every backward, since whole
gradients are what it must not keep.
Invariant: all ranks call forward, backward, step and the readers equally often, in the same order.
Not covered: reduced precision, offload to host memory, model parallelism.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from deepspeed.utils import logger as deepspeed_logger
from deepspeed.utils import safe_get_full_optimizer_state, safe_set_full_optimizer_state
from torch import Tensor
from torch.nn import Parameter

from common.learner import LearnerConfig
from learner.policy import Policy, TokenScores

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, each shaped like its parameter
BUCKET = 1 << 26  # elements gathered or reduced together


class Zero:
    """A policy under training on one of `world` ranks of torch's default process group, which must exist."""

    def __init__(self, policy: Policy, settings: LearnerConfig, *, world: int) -> None:
        self.policy = policy
        self.world = world
        self.stage = settings.zero_stage
        self.grad_clip = settings.grad_clip
        self._parameters = list(policy.model.named_parameters())
        elements = sum(p.numel() for _, p in self._parameters)
        self.optimizer = torch.optim.AdamW(
            policy.parameters(), lr=0.0, betas=settings.betas, weight_decay=settings.weight_decay, fused=True
        )
        deepspeed_logger.setLevel(logging.WARNING)
        self.engine, *_ = deepspeed.initialize(
            model=policy, optimizer=self.optimizer, config=_settings(self.stage, settings.grad_clip, elements)
        )

    @property
    def device(self) -> torch.device:
        return torch.device(self.engine.device)

    def __call__(self, *rows: Tensor) -> TokenScores:
        """Policy.forward; under stage 3 a collective."""
        scores: TokenScores = self.engine(*rows)
        return scores

    def accumulation(self) -> AbstractContextManager[None]:
        """Encloses all backward calls of a step; in stages 1 and 2 gradients are reduced when it ends."""
        context: AbstractContextManager[None] = (
            self.engine.coalesce_grad_reduction() if self.stage in (1, 2) else nullcontext()
        )
        return context

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of `loss` [] to the step's. `last`: no more will come before `step`."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.world)

    def step(self, lr: float) -> float:
        """Clip by global norm, update the weights, clear the gradients. Returns the norm before clipping."""
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        if self.stage:
            self.engine.step()
            return float(self.engine.get_global_grad_norm())
        # Plain DeepSpeed clips without telling the norm, so at stage 0 it is not asked to clip.
        norm = torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.grad_clip or float("inf"))
        self.engine.step()
        return float(norm)

    def weights(self) -> Iterator[list[tuple[str, Tensor]]]:
        """Buckets of (checkpoint name, whole parameter), tied ones once. Valid until the next; collective."""
        for bucket in self._buckets():
            with self._whole(bucket):
                yield [(name, parameter.detach()) for name, parameter in bucket]

    def moments(self) -> Iterator[list[tuple[str, Tensor]]]:
        """Buckets of (`name.exp_avg` | `name.exp_avg_sq`, whole tensor), after a first step; collective."""
        for bucket in self._buckets():
            yield [(f"{name}.{key}", self._moment(p, key)) for name, p in bucket for key in MOMENTS]

    def restore_moments(self, moments: dict[str, Tensor]) -> None:
        """Set the moments of the parameters named in `moments`. Needs an optimiser that has made a step."""
        for name, parameter in self._parameters:
            for key in MOMENTS:
                value = moments.get(f"{name}.{key}")
                if value is None:
                    continue
                if self.stage:
                    safe_set_full_optimizer_state(parameter, value.to(self.device), key)
                else:
                    self.optimizer.state[parameter][key].copy_(value)

    @property
    def updates(self) -> int:
        """Optimiser steps behind AdamW's bias correction."""
        return max((int(state["step"]) for state in self.optimizer.state.values()), default=0)

    @updates.setter
    def updates(self, count: int) -> None:
        for state in self.optimizer.state.values():
            state["step"].fill_(count)

    def close(self) -> None:
        self.engine.destroy()

    def _moment(self, parameter: Parameter, key: str) -> Tensor:
        moment: Tensor = (
            safe_get_full_optimizer_state(parameter, key) if self.stage else self.optimizer.state[parameter][key]
        )
        return moment

    def _buckets(self) -> Iterator[list[tuple[str, Parameter]]]:
        bucket: list[tuple[str, Parameter]] = []
        held = 0
        for name, parameter in self._parameters:
            size = getattr(parameter, "ds_numel", parameter.numel())
            if bucket and held + size > BUCKET:
                yield bucket
                bucket, held = [], 0
            bucket.append((name, parameter))
            held += size
        yield bucket

    def _whole(self, bucket: list[tuple[str, Parameter]]) -> AbstractContextManager[None]:
        context: AbstractContextManager[None] = (
            deepspeed.zero.GatheredParameters([p for _, p in bucket]) if self.stage == 3 else nullcontext()
        )
        return context


def _settings(stage: int, grad_clip: float, elements: int) -> dict[str, Any]:
    bucket = max(1, min(elements, BUCKET))
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,  # where a step ends is said explicitly (Zero.backward)
        "gradient_clipping": grad_clip if stage else 0.0,
        "steps_per_print": 1 << 62,
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": False,
            "reduce_bucket_size": bucket,
            **({"stage3_prefetch_bucket_size": bucket} if stage == 3 else {}),
        },
    }


def skip_shared_memory_op() -> None:
    """Keep DeepSpeed from compiling its shared-memory all-reduce; call before its communication starts.

    That op serves tensor-parallel inference alone, which never happens here. Compiling it takes half a minute
    and a compiler, and a killed compile leaves a lock on which every later start waits for ever. Editing the
    table of compatible operators is the way DeepSpeed offers to switch one off.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
