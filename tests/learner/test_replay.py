"""Whoever trains a run's batches again gets the very shares that its ranks got, from the journal and the book alone."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from common.config import Config, IntrinsicConfig, LoggingConfig
from common.types import Group, MicroBatch, Share
from learner.history import History
from learner.journal import records
from learner.replay import replay
from learner.resume_point import latest_checkpoint
from learner.task_book import TaskBook
from tests.fakes.peers import Stage, small

STEPS = 5


def settings(incarnation: int = 0) -> Config:
    """Proposers are paid for answers that the book does not hold, so what they are paid depends on all before."""
    config = small(steps=STEPS, eta=2, save_every=2, incarnation=incarnation, ranks=2, minibatches=2)
    return dataclasses.replace(
        config,
        algorithm=dataclasses.replace(config.algorithm, proposals=4),
        intrinsic=IntrinsicConfig(answer_diversity=0.5, output_diversity=0.5, hierarchical=True),
        logging=LoggingConfig(keep_journal=True),
    )


async def live(folder: Path, incarnation: int, last: int) -> dict[int, list[Share]]:
    """One incarnation until `last` steps are trained: the shares of both ranks by step."""
    stage = Stage(settings(incarnation), folder)
    first, checkpoint = latest_checkpoint(folder)
    if checkpoint is not None:
        stage.intake.resume(first)
    await stage.begin(0)
    stage.spawn(stage.act(0))
    await stage.settle()
    got: dict[int, list[Share]] = {}
    for step in range(first, last):
        replies = [await stage.share(step, rank) for rank in range(2)]
        got[step] = [reply.share for reply in replies if reply.share is not None]
        await stage.train(step)
    await stage.crash()
    return got


@pytest.fixture
async def shares(tmp_path: Path) -> dict[int, list[Share]]:
    """Of the weights that a run ends with: it crashes one step behind its checkpoint and is taken up again."""
    before = await live(tmp_path, 0, 3)
    return before | await live(tmp_path, 1, STEPS)


def again(
    folder: Path,
    steps: range,
    rank: int,
    batches: dict[int, list[Group]] | None = None,
    config: Config | None = None,
) -> list[Share]:
    config, found = config or settings(), []

    def train(share: Share) -> dict[str, float]:
        found.append(share)
        return {"loss": float(share.step)}

    book = TaskBook(shutil.copyfile(folder / "tasks.sqlite", folder / "copy.sqlite"), (), config)
    history = History(folder / "journal") if batches is None else batches
    figures = list(replay(config, steps, history, book, train, rank=rank))
    book.close()
    assert figures == [(step, {"loss": float(step)}) for step in steps]
    return found


def parts(share: Share) -> list[bytes]:
    fields = MicroBatch.__dataclass_fields__
    return [getattr(batch, name).tobytes() for batch in share.micro_batches for name in fields]


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("first", [0, 2])
def test_shares_are_those_of_the_run(tmp_path: Path, shares: dict[int, list[Share]], first: int, rank: int) -> None:
    steps = range(first, STEPS)
    found = again(tmp_path, steps, rank)
    assert [share.updates for share in found] == [shares[step][rank].updates for step in steps]
    assert [parts(share) for share in found] == [parts(shares[step][rank]) for step in steps]
    assert any(np.any(batch.advantages) for share in found for batch in share.micro_batches)


def test_without_the_batches_before_it_begins_with_what_the_book_holds(
    tmp_path: Path, shares: dict[int, list[Share]]
) -> None:
    steps = range(2, STEPS)
    history = History(tmp_path / "journal")
    found = again(tmp_path, steps, 0, {step: history[step] for step in steps})
    assert [parts(share) for share in found] == [parts(shares[step][0]) for step in steps]


def test_batches_are_those_that_were_delivered(tmp_path: Path, shares: dict[int, list[Share]]) -> None:
    """Checkpoints wrote them again, settled."""
    delivered: dict[int, Group] = {}
    segments = [path for path in (tmp_path / "journal").iterdir() if path.suffix in (".azj", ".old")]
    for path in sorted(segments, key=lambda path: int(path.stem)):
        for _, record in records(path):
            if isinstance(record, Group):
                delivered.setdefault(record.lease, record)
    found = [group for batch in History(tmp_path / "journal").values() for group in batch]
    assert len(found) == STEPS * 15
    for group in found:
        first = delivered[group.lease]
        assert [s.reward for s in group.samples] == [s.reward for s in first.samples]
        assert group.proposal == first.proposal


def test_other_settings_give_other_shares(tmp_path: Path, shares: dict[int, list[Share]]) -> None:
    unpaid = dataclasses.replace(settings(), intrinsic=IntrinsicConfig())
    other = again(tmp_path, range(STEPS), 0, config=unpaid)
    assert [parts(share) for share in other] != [parts(shares[step][0]) for step in range(STEPS)]
