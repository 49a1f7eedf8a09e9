"""What is reported about one training step: sums over answer tokens, reduced over ranks once.

Invariant: every rank adds at least one micro-batch, so all ranks reduce the same names in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from learner.loss import probability_ratio

PHASES = ("forward", "backward", "update")


class StepMetrics:
    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._ratio_max = 0.0
        self._inner = 0.0  # seconds of blocks timed inside the running one
        self._seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Adds the wall time of the block to `phase`, one of PHASES, less that of blocks timed inside it."""
        outer, self._inner = self._inner, 0.0
        began = time.perf_counter()
        yield
        whole = time.perf_counter() - began
        self._seconds[phase] += whole - self._inner
        self._inner = outer + whole

    def add(
        self,
        loss: Tensor,
        logprobs: Tensor,
        behaviour_logprobs: Tensor,
        statistics: Mapping[str, Tensor],
        sequences: int,
    ) -> None:
        """One micro-batch: weighted loss [], per-token values [N]. With `sequences` 0 it only names the
        sums."""
        new, old = logprobs.detach().double(), behaviour_logprobs.double()
        ratio = probability_ratio(new, old)
        tokens = {
            "tokens": torch.ones_like(new),
            "ratio": ratio,
            "ratio_squared": ratio.square(),
            "kl": old - new,
            "surprisal": -new,
            **{name: value.double() for name, value in statistics.items()},
        }
        sums = {name: value.sum() for name, value in tokens.items()}
        sums |= {
            "loss": loss.detach().double(),
            "sequences": torch.tensor(float(sequences), device=loss.device),
        }
        for name, value in sums.items():
            self._sums[name] = self._sums.get(name, 0.0) + (value if sequences else value * 0.0)
        if sequences:
            self._ratio_max = max(self._ratio_max, float(ratio.max()))

    def reduced(self) -> dict[str, float]:
        """Metrics over all ranks (Trainer.step says which); collective."""
        names = sorted(self._sums)
        device = self._sums["loss"].device
        sums = torch.stack([self._sums[name].double() for name in names])
        peaks = torch.tensor([self._ratio_max, *self._seconds.values()], dtype=torch.float64, device=device)
        dist.all_reduce(sums)
        dist.all_reduce(peaks, op=dist.ReduceOp.MAX)
        total = dict(zip(names, sums.tolist(), strict=True))
        ratio_max, *seconds = peaks.tolist()
        ratio, ratio_squared = total.pop("ratio"), total.pop("ratio_squared")
        whole = {name: total.pop(name) for name in ("loss", "tokens", "sequences")}
        count = max(whole["tokens"], 1.0)
        return {
            **whole,
            **{name: value / count for name, value in total.items()},
            "ratio_mean": ratio / count,
            "ratio_max": ratio_max,
            "effective_sample_size": ratio**2 / (count * ratio_squared) if ratio_squared else 0.0,
            **{f"seconds_{phase}": value for phase, value in zip(self._seconds, seconds, strict=True)},
        }
