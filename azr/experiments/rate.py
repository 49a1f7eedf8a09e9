"""How fast a training loop is once it runs: what it trained in a window of its steps, per second of the wall clock.

The first steps fill queues and warm up libraries; in the last steps of an asynchronous run nothing more is sampled, so
they are quicker than they would be in a longer one. Both are left out, so that what is trained in the window is about
what was sampled in it. Not guaranteed: that the queue is equally full at both ends of the window.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.errors import PartFailed


@dataclass(frozen=True, slots=True)
class Step:
    """A learner step that ended at second `at` of some clock, with what it trained."""

    at: float
    sequences: int
    tokens: float  # of answers


@dataclass(frozen=True, slots=True)
class Rate:
    steps: int
    seconds: float
    sequences: int
    tokens: float

    @property
    def sequences_per_second(self) -> float:
        return self.sequences / self.seconds

    @property
    def tokens_per_second(self) -> float:
        return self.tokens / self.seconds

    @property
    def tokens_per_sequence(self) -> float:
        return self.tokens / self.sequences


def steady(steps: Sequence[Step], skip: int) -> Rate:
    """Of all but the first and the last `skip` (≥ 1) of `steps`. PartFailed if none is left."""
    inner = steps[skip : len(steps) - skip]
    if not inner:
        raise PartFailed("measurement", f"{len(steps)} steps: not more than twice the {skip} that are left out")
    begin, end = steps[skip - 1].at, inner[-1].at
    return Rate(len(inner), end - begin, sum(s.sequences for s in inner), sum(s.tokens for s in inner))


def of_run(rows: Iterable[Mapping[str, Any]]) -> list[Step]:
    """The steps in the rows of a metrics.jsonl whose run trains every sample of its batches."""
    trained = (row for row in rows if "groups" in row)
    return [Step(float(row["time"]), int(row["sequences"]), float(row["tokens"])) for row in trained]
