"""Float32 masters of low-precision weights where DeepSpeed keeps none: at ZeRO stage 0.

DeepSpeed's own bfloat16 optimiser of that stage accumulates gradients in bfloat16, so later micro-batches of a step
would be rounded away; here torch casts each gradient to float32 before it is added (`Tensor.grad_dtype`, torch 2.10).
Invariant: between steps every weight is its master, rounded.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import Parameter


class Masters:
    """Of `parameters`, on their device. An optimiser works on `tensors` [one per parameter, same shape, float32]."""

    def __init__(self, parameters: Iterable[Parameter]) -> None:
        self._parameters = list(parameters)
        self.tensors: list[Tensor] = [Parameter(p.detach().float()) for p in self._parameters]
        self._of = dict(zip(self._parameters, self.tensors, strict=True))
        for parameter in self._parameters:
            parameter.grad_dtype = torch.float32

    def __getitem__(self, parameter: Parameter) -> Tensor:
        return self._of[parameter]

    def take_gradients(self) -> None:
        """Hand the gradients of the weights over to the masters."""
        for master, parameter in zip(self.tensors, self._parameters, strict=True):
            master.grad, parameter.grad = parameter.grad, None

    @torch.no_grad()
    def write_back(self) -> None:
        """Round the masters to the weights and drop the gradients."""
        weights: list[Tensor] = list(self._parameters)
        torch._foreach_copy_(weights, self.tensors)
        for master in self.tensors:
            master.grad = None
