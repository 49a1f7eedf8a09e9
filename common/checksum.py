"""A checksum of a flat buffer that is the same on CPU and GPU, computed where the buffer is.

Multilinear hashing (Dietzfelbinger 1996; Thorup, arXiv 1504.06804): the sum over all 32-bit words v[i] of m[i] · v[i]
modulo 2^64, with odd 64-bit multipliers that look random. Two buffers that differ by chance, in one word or in two that
changed places, agree with a probability below 2^-32. Every row of WORDS words has the same multipliers; sums of rows
are added with multipliers of their own, and so is the length.
Not guaranteed: anything against somebody who wants two buffers to agree.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

WORDS = 1 << 18  # of a row: its multipliers and products, 2 MiB each, stay in a CPU's cache
_ROWS = {"cpu": 1}  # at a time; a GPU takes many, since it starts a kernel for each time
_GPU_ROWS = 64
_MASK = (1 << 64) - 1


def checksum(buffer: Tensor) -> str:
    """Of uint8 [bytes], a multiple of 4, on any device: 16 hexadecimal digits. Takes 2 (GPU: 128) MiB there besides."""
    words = buffer.view(torch.int32)
    full = len(words) // WORDS
    table, rows = _table(buffer.device), torch.zeros(full + 1, dtype=torch.int64, device=buffer.device)
    at_once = min(_ROWS.get(buffer.device.type, _GPU_ROWS), max(1, full))
    products = torch.empty(at_once, WORDS, dtype=torch.int64, device=buffer.device)
    for begin in range(0, full, at_once):
        part = words[begin * WORDS : min(begin + at_once, full) * WORDS].view(-1, WORDS)
        torch.mul(part, table, out=products[: len(part)])
        torch.sum(products[: len(part)], 1, out=rows[begin : begin + len(part)])
    rest = words[full * WORDS :]
    rows[full] = torch.sum(rest * table[: len(rest)])
    sums = rows.cpu().numpy().view(np.uint64).tolist()
    keys = _multipliers(len(sums) + 1, seed=1).view(np.uint64).tolist()
    total = sum(key * value for key, value in zip(keys, (*sums, len(words)), strict=True)) & _MASK
    return f"{total:016x}"


@cache
def _table(device: torch.device) -> Tensor:
    return torch.from_numpy(_multipliers(WORDS, seed=0)).to(device)


def _multipliers(count: int, seed: int) -> NDArray[np.int64]:
    """Odd numbers by splitmix64 (Steele, Lea, Flood 2014, figure 16)."""
    state = (np.arange(1, count + 1, dtype=np.uint64) + np.uint64(seed << 40)) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) | np.uint64(1)).view(np.int64)
