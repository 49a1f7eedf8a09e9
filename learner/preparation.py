"""From a batch as it was formed to what each trainer rank gets: settled, whitened, divided.

One function for all who do this, the intake of a run and the replay of one, so that both train the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from common.config import Config
from common.types import Group, Share
from learner.batch import sequences, shares
from learner.intrinsic import Programs
from learner.settlement import settle
from learner.task_book import TaskBook


def prepared(
    step: int,
    batch: Sequence[Group],
    config: Config,
    book: TaskBook,
    ahead: Iterable[Sequence[Group]],
    programs: Programs | None = None,
) -> tuple[list[Group], list[Share]]:
    """The settled batch of `step` and the share of each rank; arguments as of learner.settlement.settle."""
    batch = settle(step, batch, config, book, ahead, programs)
    learner = config.learner
    rows = sequences(step, batch, config.algorithm, config.run.seed).rows
    return batch, shares(
        step,
        rows,
        learner.ranks,
        learner.micro_batch_tokens,
        learner.minibatches,
        learner.share_prompts,
        learner.packing,
    )
