"""What a kept journal says of every batch, also of those that checkpoints have long contained."""

from __future__ import annotations

from pathlib import Path

import pytest

from common.messages import BatchFormed
from common.types import Group, Kind
from learner.history import History
from learner.journal import Journal
from tests.fakes.groups import a_group, a_sample


def group(lease: int, reward: float = 0.25) -> Group:
    return a_group(
        lease, Kind.PROPOSE_DEDUCTION, [a_sample(Kind.PROPOSE_DEDUCTION, version=lease, length=4, reward=reward)]
    )


def told(folder: Path) -> dict[int, list[tuple[int, float]]]:
    history = History(folder)
    return {step: [(g.lease, g.samples[0].reward) for g in groups] for step, groups in sorted(history.items())}


def written(folder: Path, *records: Group | BatchFormed, keep: bool = True) -> Journal:
    journal = Journal(folder, keep=keep)
    for record in records:
        journal.append(record)
    return journal


def test_compaction_takes_no_batch_from_a_kept_journal(tmp_path: Path) -> None:
    journal = written(tmp_path, group(3), group(1), BatchFormed(0, (1, 3)), group(2), group(5), BatchFormed(1, (2,)))
    journal.compact([(1, [group(2)])], [group(5)])
    journal.append(group(4))
    journal.append(BatchFormed(2, (4, 5)))
    journal.compact([], [])
    journal.close()
    assert told(tmp_path) == {0: [(1, 0.25), (3, 0.25)], 1: [(2, 0.25)], 2: [(4, 0.25), (5, 0.25)]}


def test_one_that_is_not_kept_has_what_no_checkpoint_contained(tmp_path: Path) -> None:
    journal = written(tmp_path, group(1), BatchFormed(0, (1,)), group(2), BatchFormed(1, (2,)), keep=False)
    journal.compact([(1, [group(2)])], [])
    journal.close()
    assert told(tmp_path) == {1: [(2, 0.25)]}


def test_of_a_batch_written_twice_what_was_delivered_counts(tmp_path: Path) -> None:
    journal = written(tmp_path, group(1), BatchFormed(0, (1,)))
    journal.compact([(0, [group(1, reward=-0.5)])], [])
    journal.close()
    assert told(tmp_path) == {0: [(1, 0.25)]}


def test_of_batches_of_one_number_the_last_that_was_formed_counts(tmp_path: Path) -> None:
    journal = written(tmp_path, group(1), BatchFormed(0, (1,)), group(2), BatchFormed(0, (2,)))
    journal.compact([(0, [group(2, reward=-0.5)])], [])
    journal.close()
    assert told(tmp_path) == {0: [(2, 0.25)]}


def test_segments_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number, lease in ((9, 2), (10, 1)):
        journal = written(tmp_path / f"{number}", group(lease), BatchFormed(0, (lease,)))
        journal.close()
        (found,) = (path for path in (tmp_path / f"{number}").glob("*.azj") if path.stat().st_size)
        found.rename(tmp_path / f"{number}.old")
    journal = written(tmp_path)
    journal.close()
    assert told(tmp_path) == {0: [(1, 0.25)]}


def test_batches_whose_groups_are_gone_and_steps_without_a_batch_are_not_there(tmp_path: Path) -> None:
    journal = written(tmp_path, group(1), BatchFormed(3, (1, 2)))
    journal.close()
    history = History(tmp_path)
    assert len(history) == 0 and 3 not in history
    with pytest.raises(KeyError):
        history[3]


def test_what_follows_a_cut_record_is_in_the_next_segment(tmp_path: Path) -> None:
    journal = written(tmp_path, group(1), BatchFormed(0, (1,)), group(2))
    journal.close()
    (segment,) = (path for path in tmp_path.glob("*.azj") if path.stat().st_size)
    segment.write_bytes(segment.read_bytes()[:-1])
    journal = written(tmp_path, group(2), BatchFormed(1, (2,)))
    journal.close()
    assert told(tmp_path) == {0: [(1, 0.25)], 1: [(2, 0.25)]}
