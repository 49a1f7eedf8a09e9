"""A run of the real intake and the real trainer, with actors that answer at once, and its replay; no Ray, no vLLM.

    python -m tests.real.trained FOLDER key=value ...

The run crashes after three steps, one behind its checkpoint, and is taken up again to its end. Prints the figures of
the replay as JSON, a row for each step.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import sys
from pathlib import Path

from common.config import Config, load, to_yaml
from learner.history import History
from learner.replay import replay
from learner.resume_point import latest_checkpoint
from learner.task_book import TaskBook
from learner.trainer import Trainer
from tests.fakes.peers import Stage

CRASH = 3
FIRST = Path("first")  # a checkpoint of no steps


async def live(config: Config, folder: Path, trainer: Trainer, last: int) -> None:
    """One incarnation, from the newest checkpoint until `last` steps are trained."""
    (folder / "config.yaml").write_text(to_yaml(config))
    stage = Stage(config, folder)
    step, checkpoint = latest_checkpoint(folder)
    if checkpoint is not None:
        stage.intake.resume(step)
        trainer.load(checkpoint)
    await stage.begin(0)
    stage.spawn(stage.act(0))
    await stage.settle()
    for number in range(step, last):
        share = (await stage.share(number)).share
        assert share is not None
        figures = trainer.step(share)
        if (number + 1) % config.learner.save_every == 0:
            trainer.save(Path(f"checkpoints/step-{number + 1:06d}"))
        await stage.train(number, figures)
    await stage.crash()


def replayed(config: Config, folder: Path, trainer: Trainer) -> list[dict[str, float]]:
    """Of all steps, by a `trainer` as it was before the first."""
    book = TaskBook(shutil.copyfile(folder / "tasks.sqlite", folder / "copy.sqlite"), (), config)
    steps = range(config.learner.steps)
    figures = [found for _, found in replay(config, steps, History(folder / "journal"), book, trainer.step)]
    book.close()
    return figures


def main(folder: Path, *settings: str) -> None:
    config = load("tiny.yaml", settings)
    trainer = Trainer(config, rank=0, world=1, master=("127.0.0.1", 0), folder=folder)
    trainer.save(FIRST)
    asyncio.run(live(config, folder, trainer, CRASH))
    again = dataclasses.replace(config, run=dataclasses.replace(config.run, incarnation=1))
    asyncio.run(live(again, folder, trainer, config.learner.steps))
    trainer.load(FIRST)
    print(json.dumps(replayed(config, folder, trainer)))
    trainer.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
