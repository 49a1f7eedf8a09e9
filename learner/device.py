"""Between the host and the device that a trainer rank computes on; on a CPU both are one and all of it is plain.

To a GPU and back everything goes through page-locked memory without waiting: a copy from or to ordinary memory would
hold the host until all queued work is done.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def moved(array: np.ndarray[Any, Any], device: torch.device | None) -> Tensor:
    """`array` on `device`, in the order of its stream; on a CPU it shares the array's memory."""
    tensor = torch.from_numpy(array)
    if device is None or device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)


def copied_to_host(tensor: Tensor) -> Tensor:
    """A copy in host memory; of a tensor on a GPU it is there only after `finish`."""
    if tensor.device.type == "cpu":
        return tensor.detach().clone()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor.detach(), non_blocking=True)


def finish(device: torch.device) -> None:
    """Wait for all work and copies queued on `device`."""
    if device.type != "cpu":
        torch.cuda.synchronize(device)
