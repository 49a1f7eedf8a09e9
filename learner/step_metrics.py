"""What is reported about one training step: sums over answer tokens, kept by staleness, reduced over ranks once.

Sums stay on the device and come to the host in one transfer at the end: asking for a number sooner would make the host
wait for all work that is queued. So phases are timed on the host's clock, and on a GPU what one phase has queued may be
waited for in the next; their sum is that of the step.
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
BUCKETS = ("0", "1", "2", "3-4", "5-8", "9+")  # of staleness, in versions
_UP_TO = (0, 1, 2, 4, 8)  # the largest of each bucket but the last
_PEAKS = ("ratio_max", "log_ratio_max")


class StepMetrics:
    def __init__(self) -> None:
        self._tokens: dict[str, Tensor] = {}  # name → [BUCKETS], sums over tokens
        self._whole: dict[str, Tensor] = {}  # name → [], sums over micro-batches
        self._peaks: Tensor | None = None  # [_PEAKS, BUCKETS]
        self._positions = [0, 0]  # of the model's input, and how many of them belong to a sequence
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
        staleness: Tensor,
        statistics: Mapping[str, Tensor],
        fresh: Tensor,
        sequences: int,
    ) -> None:
        """One micro-batch: weighted loss [], per-token values [N], staleness an integer. `fresh` [N] bool: tokens whose
        sequence was sampled by the very weights that score it here. With `sequences` 0 it only names the sums."""
        new, old = logprobs.detach().double(), behaviour_logprobs.double()
        ratio = probability_ratio(new, old)
        tokens = {
            "tokens": torch.ones_like(new),
            "ratio": ratio,
            "ratio_squared": ratio.square(),
            "kl": old - new,
            "surprisal": -new,
            "log_ratio_mean": (new - old).abs(),
            **{name: value.double() for name, value in statistics.items()},
        }
        bucket = torch.stack([staleness > most for most in _UP_TO]).sum(0)
        member = (bucket[:, None] == torch.arange(len(BUCKETS), device=loss.device)) & (sequences > 0)  # [N, BUCKETS]
        for name, value in tokens.items():
            self._tokens[name] = self._tokens.get(name, 0.0) + value @ member.double()
        whole = {
            "loss": loss.detach().double(),
            "sequences": torch.ones_like(new[0]) * sequences,
            "fresh_tokens": fresh.double().sum(),
            "mismatch": (new - old).abs() @ fresh.double(),
        }
        for name, value in whole.items():
            self._whole[name] = self._whole.get(name, 0.0) + (value if sequences else value * 0.0)
        peaks = torch.stack([ratio, (new - old).abs()])[:, :, None].where(member, 0.0).amax(1)
        self._peaks = peaks if self._peaks is None else self._peaks.maximum(peaks)

    def add_positions(self, put_through: int, filled: int) -> None:
        """Of one micro-batch: positions of the model's input, and how many of them belong to a sequence."""
        self._positions[0] += put_through
        self._positions[1] += filled

    def reduced(self) -> dict[str, float]:
        """Metrics over all ranks (Trainer.step says which); collective."""
        assert self._peaks is not None
        names = sorted(self._tokens)
        whole = torch.stack(list(self._whole.values()))
        positions = torch.tensor(self._positions, dtype=whole.dtype, device=whole.device)
        sums = torch.cat([*(self._tokens[name] for name in names), whole, positions])
        seconds = torch.tensor(list(self._seconds.values()), dtype=torch.float64, device=sums.device)
        most = torch.cat([self._peaks.flatten(), seconds])
        dist.all_reduce(sums)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        together = torch.cat([sums, most]).cpu()
        sums, most = together[: len(sums)], together[len(sums) :]
        count = len(names) * len(BUCKETS)
        by_bucket = dict(zip(names, sums[:count].view(len(names), -1), strict=True))
        peaks = most[: self._peaks.numel()].view_as(self._peaks)
        out = _figures({name: float(value.sum()) for name, value in by_bucket.items()}, peaks.amax(1))
        *of_whole, put_through, filled = sums[count:].tolist()
        out |= dict(zip(self._whole, of_whole, strict=True))
        out["padding"] = 1.0 - filled / put_through if put_through else 0.0
        out["mismatch"] /= max(out["fresh_tokens"], 1.0)
        phases = most[self._peaks.numel() :].tolist()
        out |= {f"seconds_{phase}": value for phase, value in zip(self._seconds, phases, strict=True)}
        for i, bucket in enumerate(BUCKETS):
            of_bucket = {name: float(value[i]) for name, value in by_bucket.items()}
            if of_bucket["tokens"]:
                found = _figures(of_bucket, peaks[:, i])
                out |= {f"staleness_{bucket}/{name}": value for name, value in found.items()}
        return out


def _figures(sums: dict[str, float], peaks: Tensor) -> dict[str, float]:
    """Of a set of tokens, from sums over them and from maxima [_PEAKS]."""
    means = dict(sums)
    tokens, ratio, squared = (means.pop(name) for name in ("tokens", "ratio", "ratio_squared"))
    count = max(tokens, 1.0)
    return {
        "tokens": tokens,
        **{name: value / count for name, value in means.items()},
        "ratio_mean": ratio / count,
        "effective_sample_size": ratio**2 / (count * squared) if squared else 0.0,
        **dict(zip(_PEAKS, peaks.tolist(), strict=True)),
    }
