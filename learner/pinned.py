"""From host memory to the learner's device without waiting for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def onto(array: np.ndarray[Any, Any], device: torch.device | None) -> Tensor:
    """A copy of `array`. To a GPU it goes by way of pinned memory, which torch keeps until the copy is done."""
    tensor = torch.tensor(array)
    return tensor.pin_memory().to(device, non_blocking=True) if device and device.type == "cuda" else tensor.to(device)
