"""What was accepted is read back after any crash, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from common.messages import BatchFormed
from common.types import Group, Kind
from learner.journal import Journal
from tests.fakes.groups import a_group, a_sample, a_task


def group(lease: int) -> Group:
    sample = a_sample(Kind.PROPOSE_DEDUCTION, version=lease, length=4, reward=0.25)
    return a_group(lease, Kind.PROPOSE_DEDUCTION, [sample], proposal=a_task(f"{lease}"), solve_rate=0.5)


def leases(groups: list[Group]) -> list[int]:
    return [g.lease for g in groups]


def segment(folder: Path) -> Path:
    """The file that appends went to: the one with content."""
    (found,) = (path for path in folder.glob("*.azj") if path.stat().st_size)
    return found


Opener = Callable[..., Journal]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Opener]:
    """Opens the journal of the run, or that in `folder`, and leaves it open, as a crash would."""
    journals: list[Journal] = []

    def make(*records: Group | BatchFormed, folder: Path = tmp_path / "journal", keep: bool = False) -> Journal:
        journals.append(Journal(folder, keep=keep))
        for record in records:
            journals[-1].append(record)
        return journals[-1]

    yield make
    for journal in journals:
        journal.close()


def test_batches_keep_their_order_and_the_rest_waits(opened: Opener) -> None:
    journal = opened(group(3), group(1), group(2), BatchFormed(0, (1, 3)), group(5), group(4), BatchFormed(1, (2, 4)))
    contents = journal.read()
    assert {step: leases(groups) for step, groups in contents.batches.items()} == {0: [1, 3], 1: [2, 4]}
    assert list(contents.waiting) == [5]


def test_a_group_comes_back_as_it_went_in(opened: Opener) -> None:
    back = opened(group(7)).read().waiting[7]
    sent = group(7)
    assert (back.lease, back.kind, back.proposal, back.solve_rate) == (7, sent.kind, sent.proposal, 0.5)
    (ours,), (theirs,) = sent.samples, back.samples
    np.testing.assert_array_equal(ours.tokens, theirs.tokens)
    np.testing.assert_array_equal(ours.logprobs, theirs.logprobs)
    assert (ours.spans, ours.reward, ours.status) == (theirs.spans, theirs.reward, theirs.status)


def test_another_process_goes_on_in_a_segment_of_its_own(opened: Opener) -> None:
    opened(group(1), group(2))
    assert leases(opened(BatchFormed(0, (1, 2))).read().batches[0]) == [1, 2]


def test_a_crash_at_any_byte_of_the_last_record_keeps_the_earlier_ones(tmp_path: Path, opened: Opener) -> None:
    journal = opened(group(1), group(2))
    whole = segment(tmp_path / "journal").read_bytes()
    journal.append(BatchFormed(0, (1, 2)))
    longer = segment(tmp_path / "journal").read_bytes()
    for size in range(len(whole), len(longer)):
        folder = tmp_path / f"cut-{size}"
        folder.mkdir()
        (folder / "000001.azj").write_bytes(longer[:size])
        contents = opened(group(3), folder=folder).read()
        assert (contents.batches, list(contents.waiting)) == ({}, [1, 2, 3])


def test_an_altered_byte_is_never_read_as_data(tmp_path: Path, opened: Opener) -> None:
    journal = opened(group(1))
    first = segment(tmp_path / "journal").stat().st_size
    journal.append(group(2))
    journal.append(group(3))
    path = segment(tmp_path / "journal")
    good = path.read_bytes()
    for at in range(first, 2 * first, 7):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x40]) + good[at + 1 :])
        assert list(journal.read().waiting) == [1]


def test_a_batch_whose_groups_are_gone_is_no_batch(opened: Opener) -> None:
    assert opened(group(1), BatchFormed(0, (1, 2))).read().batches == {}


def test_compaction_keeps_exactly_what_is_asked(opened: Opener) -> None:
    journal = opened(group(1), group(2), BatchFormed(0, (1,)), BatchFormed(1, (2,)), group(3), group(4))
    journal.compact([(1, [group(2)])], [group(4)])
    journal.append(group(5))
    journal.append(BatchFormed(2, (4, 5)))
    contents = opened().read()
    assert {step: leases(groups) for step, groups in contents.batches.items()} == {1: [2], 2: [4, 5]}
    assert contents.waiting == {}


def test_compaction_removes_old_segments_or_keeps_them_by_another_name(tmp_path: Path, opened: Opener) -> None:
    for keep in (False, True):
        folder = tmp_path / f"{keep}"
        opened(group(1), folder=folder, keep=keep).compact([], [])
        assert opened(folder=folder).read().waiting == {}
        assert len(list(folder.glob("*.old"))) == keep


def test_a_crash_before_old_segments_are_removed_changes_nothing(tmp_path: Path, opened: Opener) -> None:
    journal = opened(group(1), BatchFormed(0, (1,)), group(2), BatchFormed(1, (2,)), group(3))
    path = segment(tmp_path / "journal")
    old = path.read_bytes()
    journal.compact([(1, [group(2)])], [group(3)])
    path.write_bytes(old)
    contents = opened().read()
    assert {step: leases(groups) for step, groups in contents.batches.items()} == {0: [1], 1: [2]}
    assert list(contents.waiting) == [3]


def test_a_compaction_that_did_not_finish_is_not_read(tmp_path: Path, opened: Opener) -> None:
    journal = opened(group(1))
    (tmp_path / "journal" / "000009.part").write_bytes(segment(tmp_path / "journal").read_bytes() * 2)
    assert list(journal.read().waiting) == [1]
