"""What a trainer rank does all day: ask for its share, train it, hold the new version for pushes, save when told.

Ranks wait for data on their line to the intake, never inside a collective; all get the share of the same step, and
everything between two shares is collective in the same order.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from torch import Tensor

from common import messages as m
from common.ledger import Ledger
from common.types import Float32Array, Int32Array, Share

Request = Callable[[object], object]
Bucket = Sequence[tuple[str, Tensor]]
Hold = Callable[[int, Iterable[Bucket], list[Float32Array]], None]


class Learner(Protocol):
    """The trainer as this loop sees it (learner/trainer.py)."""

    def step(self, share: Share) -> dict[str, float]: ...

    def weights(self) -> Iterable[Bucket]: ...

    def score(self, sequences: Sequence[Int32Array]) -> list[Float32Array]: ...


def train(
    rank: int,
    first_step: int,
    learner: Learner,
    request: Request,
    hold: Hold,
    save: Callable[[int], str],
    probe: Sequence[Int32Array],
    ledger: Ledger,
) -> int:
    """Train from `first_step` until the intake says the run is over. Returns the number of batches trained.

    `hold(version, buckets of weights, probe log-probs)` keeps a version ready for pushes on rank 0, and reads each
    bucket before it asks for the next; `save(step)` writes the checkpoint of `step` batches and returns its path.
    """
    step = first_step
    _hold(step, rank, learner, hold, probe, ledger)
    while True:
        ledger.enter("wait-batch")
        reply = request(m.WantShare(rank, step))
        assert isinstance(reply, m.ShareReply)
        if reply.share is None:
            return step
        ledger.enter("train")
        began = time.monotonic()
        metrics = learner.step(reply.share)
        seconds = time.monotonic() - began
        step += 1
        _hold(step, rank, learner, hold, probe, ledger)
        if rank == 0:
            request(m.StepDone(step - 1, metrics, seconds))
        if reply.save:
            ledger.enter("save")
            path = save(step)
            if rank == 0:
                request(m.CheckpointDone(step, path))


def _hold(
    version: int,
    rank: int,
    learner: Learner,
    hold: Hold,
    probe: Sequence[Int32Array],
    ledger: Ledger,
) -> None:
    ledger.enter("snapshot")
    logprobs, weights = learner.score(probe), learner.weights()
    if rank == 0:
        hold(version, weights, logprobs)
    for _ in weights:
        pass  # gathering is collective
