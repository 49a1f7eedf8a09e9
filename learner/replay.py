"""Train again what a run has trained, from its batches alone: no actors, no intake, no clock.

Invariant: batches are settled against the book as it was, divided and trained by the functions that the run used, so
with equal settings, starting weights and arithmetic every figure of every step is equal bit by bit. What is compared
with what is not decided here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from common.config import Config
from common.types import Group, Share
from learner.intrinsic import Programs
from learner.preparation import prepared
from learner.settlement import rebuild
from learner.task_book import TaskBook


def replay(
    config: Config,
    steps: range,
    batches: Mapping[int, Sequence[Group]],
    book: TaskBook,
    train: Callable[[Share], dict[str, float]],
    *,
    rank: int = 0,
    programs: Programs | None = None,
) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, figures of `train`) of each of `steps`, whose weights `train` begins with.

    `book` is a copy of the run's, which is taken back to the first step and grows from there.
    """
    rebuild(book, steps.start, batches, config, programs)
    for step in steps:
        batch, shares = prepared(step, batches[step], config, book, (), programs)
        yield step, train(shares[rank])
        book.add_batch(step + 1, batch)
