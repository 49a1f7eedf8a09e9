"""Copies of a device's tensors in host memory, many of them under way at once.

Invariant: a tensor may be changed or freed as soon as `host_copy` returns, if that happens in the order of the stream.
"""

from __future__ import annotations

import torch
from torch import Tensor


def host_copy(tensor: Tensor) -> Tensor:
    """Of a tensor on a GPU the copy is in page-locked memory, and complete after `finish` only."""
    if tensor.device.type == "cpu":
        return tensor.detach().clone()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor.detach(), non_blocking=True)


def finish(device: torch.device) -> None:
    """Wait for everything that is queued on `device`."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)
