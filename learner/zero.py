"""DeepSpeed ZeRO behind the five verbs a trainer needs: forward, backward, step, read and restore.

DeepSpeed divides gradients by the number of ranks; the loss is multiplied by it, so what is applied is the
exact sum over all backward calls of all ranks. Stages 0–2 reduce once per step: every rank holds all
parameters there and can hold their gradients as well. Stage 3 reduces in every backward, since whole
gradients are what it must not keep.
In bfloat16 AdamW works on float32 masters, gradients are added and reduced in float32, and the weights are the masters,
rounded. At stage 0 the masters are ours (learner/masters.py); 1 and 2, which differ in nothing that is kept here, are
DeepSpeed's BF16_Optimizer of stage 1 (its stage 2 would round sums of gradients to bfloat16); 3 is its own.
Invariant: all ranks call forward, backward, step and the readers equally often, in the same order.
Not covered: float16, offload of weights, model parallelism.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import deepspeed
import deepspeed.ops
import torch
from deepspeed.accelerator import get_accelerator
from deepspeed.utils import logger as deepspeed_logger
from deepspeed.utils import (
    safe_get_full_fp32_param,
    safe_get_full_optimizer_state,
    safe_set_full_fp32_param,
    safe_set_full_optimizer_state,
)
from torch import Tensor
from torch.nn import Parameter

from common.learner import LearnerConfig
from learner.masters import Masters
from learner.policy import Policy, TokenScores

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, each shaped like its parameter
MASTER = "master"  # the float32 parameter, where the model's is of less precision
BUCKET = 1 << 26  # elements gathered or reduced together


class Zero:
    """A policy under training on one of `world` ranks of torch's default process group, which must exist."""

    def __init__(self, policy: Policy, settings: LearnerConfig, *, world: int) -> None:
        self.policy = policy.to(get_accelerator().current_device_name())
        self.world = world
        self.stage = settings.zero_stage
        self.grad_clip = settings.grad_clip
        self._parameters = list(policy.model.named_parameters())
        self.mixed = self._parameters[0][1].dtype != torch.float32
        self._masters = Masters(p for _, p in self._parameters) if self.mixed and self.stage == 0 else None
        self._keys = (*MOMENTS, MASTER) if self.mixed else MOMENTS
        # BF16_Optimizer adds gradients up by itself and reduces at the last backward call alone.
        self._coalesces = self.stage in (1, 2) and (not self.mixed or settings.offload_optimizer)
        self.optimizer = torch.optim.AdamW(
            policy.parameters() if self._masters is None else self._masters.tensors,
            lr=0.0,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        deepspeed_logger.setLevel(logging.WARNING)
        elements = sum(p.numel() for _, p in self._parameters)
        self.engine, *_ = deepspeed.initialize(
            model=policy, optimizer=self.optimizer, config=_settings(settings, elements, mixed=self.mixed)
        )

    @property
    def device(self) -> torch.device:
        return torch.device(self.engine.device)

    def __call__(self, **rows: Any) -> TokenScores:
        """Policy.forward; under stage 3 a collective."""
        scores: TokenScores = self.engine(**rows)
        return scores

    def accumulation(self) -> AbstractContextManager[None]:
        """Encloses all backward calls of a step; in stages 1 and 2 gradients are reduced when it ends."""
        context: AbstractContextManager[None] = (
            self.engine.coalesce_grad_reduction() if self._coalesces else nullcontext()
        )
        return context

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """Add the gradient of `loss` [] to the step's. `last`: no more will come before `step`."""
        self.engine.set_gradient_accumulation_boundary(last)
        self.engine.backward(loss * self.world)

    def step(self, lr: float) -> float:
        """Clip by global norm, update the weights, clear the gradients. Returns the norm before clipping.

        With a norm that is not finite DeepSpeed leaves the weights alone and infinity is returned; at stage 0, where
        torch clips, they are spoilt.
        """
        for group in self.engine.optimizer.param_groups:
            group["lr"] = lr
        if self.stage:
            self.engine.step()
            norm = float(self.engine.get_global_grad_norm())
            return norm if norm >= 0 else float("inf")  # it says -1 where it skips no step
        # Plain DeepSpeed clips without telling the norm, so at stage 0 it is not asked to clip.
        norm = float(torch.nn.utils.clip_grad_norm_(self.policy.parameters(), self.grad_clip or float("inf")))
        if self._masters is not None:
            self._masters.take_gradients()
        self.engine.step()
        if self._masters is not None:
            self._masters.write_back()
        return norm

    def weights(self) -> Iterator[list[tuple[str, Tensor]]]:
        """Buckets of (checkpoint name, whole parameter), tied ones once. Valid until the next; collective."""
        for bucket in self._buckets():
            with self._whole(bucket):
                yield [(name, parameter.detach()) for name, parameter in bucket]

    def shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        """(checkpoint name, whole shape) of all that `weights` yields, in its order."""
        return ((name, tuple(getattr(p, "ds_shape", p.shape))) for name, p in self._parameters)

    def states(self) -> Iterator[list[tuple[str, Tensor]]]:
        """Buckets of (`name.exp_avg` | `name.exp_avg_sq` | `name.master`, whole float32 tensor); collective.

        After a first step. Masters only where the weights are not float32.
        """
        for bucket in self._buckets():
            yield [(f"{name}.{key}", self._state(p, key)) for name, p in bucket for key in self._keys]

    def restore_states(self, states: dict[str, Tensor]) -> None:
        """Set the states of the parameters named in `states`. Needs an optimiser that has made a step.

        Of weights that are not float32 only the master is set: they must hold it rounded.
        """
        for name, parameter in self._parameters:
            for key in self._keys:
                value = states.get(f"{name}.{key}")
                if value is None:
                    continue
                if not self.stage:
                    self._state(parameter, key).copy_(value)
                elif key == MASTER:
                    safe_set_full_fp32_param(parameter, value.to(self.device))
                else:
                    safe_set_full_optimizer_state(parameter, value.to(self.device), key)

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

    def _state(self, parameter: Parameter, key: str) -> Tensor:
        found: Tensor
        if self.stage:
            master = key == MASTER
            found = safe_get_full_fp32_param(parameter) if master else safe_get_full_optimizer_state(parameter, key)
            return found
        stepped = parameter if self._masters is None else self._masters[parameter]
        found = stepped.detach() if key == MASTER else self.optimizer.state[stepped][key]
        return found

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


def _settings(settings: LearnerConfig, elements: int, *, mixed: bool) -> dict[str, Any]:
    stage = settings.zero_stage
    bucket = max(1, min(elements, BUCKET))
    on_gpu = get_accelerator().device_name() != "cpu"
    zero = {
        "stage": 1 if mixed and stage == 2 else stage,
        # Stages 1 and 2 reduce when no backward is left that it could overlap with.
        "overlap_comm": on_gpu and stage == 3,
        "reduce_bucket_size": bucket,
        **({"stage3_prefetch_bucket_size": bucket} if stage == 3 else {}),
        **({"offload_optimizer": {"device": "cpu", "pin_memory": on_gpu}} if settings.offload_optimizer else {}),
    }
    precision = {
        "bf16": {"enabled": True, "immediate_grad_update": True},  # else a second copy of all gradients
        "data_types": {"grad_accum_dtype": "fp32"},
        "communication_data_type": "fp32",  # or the sums over micro-batches would be rounded before that over ranks
    }
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,  # where a step ends is said explicitly (Zero.backward)
        "gradient_clipping": settings.grad_clip if stage else 0.0,
        "steps_per_print": 1 << 62,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # torch's fused AdamW is as good on a CPU and needs no compiler
        "zero_optimization": zero,
        **(precision if mixed and stage else {}),
    }


def skip_shared_memory_op() -> None:
    """Keep DeepSpeed from compiling its shared-memory all-reduce; call before its communication starts.

    That op serves tensor-parallel inference alone, which never happens here. Compiling it takes half a minute
    and a compiler, and a killed compile leaves a lock on which every later start waits for ever. Editing the
    table of compatible operators is the way DeepSpeed offers to switch one off.
    """
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
