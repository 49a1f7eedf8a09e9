"""What each trainer rank of a replay does: it reads the journal, settles every batch in a copy of the book of its own,
and trains its share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from azr import ranks
from azr.replay_plan import Figures, Plan

BOOK = "tasks.sqlite"


def trained(plan: Plan, folder: Path) -> Iterator[tuple[int, Figures]]:
    """(step, figures of the whole batch) of each step, as it is trained. `folder` takes the files of the ranks.

    PartFailed if a rank fails.
    """
    works = [partial(_steps, plan, rank, folder / f"rank-{rank}") for rank in range(plan.config.learner.ranks)]
    return ranks.trained(plan.config, works, folder)


def _steps(plan: Plan, rank: int, own: Path, master: tuple[str, int]) -> Iterator[tuple[int, dict[str, float]]]:
    from learner.evaluation import held_out_programs
    from learner.history import History
    from learner.intrinsic import Programs, measures
    from learner.replay import replay
    from learner.task_book import TaskBook
    from learner.trainer import Trainer

    config = plan.config
    own.mkdir()
    for path in plan.folder.glob(f"{BOOK}*"):
        if not path.name.endswith("-shm"):  # an index of the write-ahead log, which SQLite makes anew
            shutil.copyfile(path, own / path.name)
    programs: Programs | None = None
    if measures(config.intrinsic):
        from learner import program as programs
    batches = History(plan.folder / "journal")
    book = TaskBook(own / BOOK, (), config, held_out_programs(Path(config.model.path)))
    world = config.learner.ranks
    start = plan.start.absolute() if plan.start else None
    trainer = Trainer(config, rank=rank, world=world, master=master, folder=own, start=start)
    yield from replay(config, plan.steps, batches, book, trainer.step, rank=rank, programs=programs)
    trainer.close()
    book.close()
