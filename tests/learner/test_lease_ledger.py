"""Every lease ends once; after a crash the ledger is that of the checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from common.errors import AzrError
from common.types import Kind
from learner.lease_ledger import LeaseLedger
from learner.leases import lease_id

A, B, C, D = (lease_id(Kind.SOLVE_DEDUCTION, number) for number in range(4))


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[LeaseLedger]:
    ledger = LeaseLedger(tmp_path / "tasks.sqlite", incarnation=0)
    for lease in (A, B, C, D):
        ledger.granted(lease, version=0)
    yield ledger
    ledger.close()


def test_a_lease_ends_once(ledger: LeaseLedger) -> None:
    assert ledger.is_open(A)
    ledger.ended(A, 0, "trained", 3)
    assert not ledger.is_open(A)
    with pytest.raises(AzrError, match=f"lease {A} ends as stale"):
        ledger.ended(A, 0, "stale", -1)
    assert ledger.fates() == {"open": 3, "trained": 1}


def test_what_was_never_granted_cannot_end(ledger: LeaseLedger) -> None:
    unknown = lease_id(Kind.EVAL, 7)
    assert not ledger.is_open(unknown)
    with pytest.raises(AzrError, match="not open"):
        ledger.ended(unknown, 0, "evaluated", -1)


def test_rewind_opens_what_was_trained_later_and_ends_what_was_lost(ledger: LeaseLedger) -> None:
    ledger.ended(A, 0, "trained", 1)
    ledger.ended(B, 1, "trained", 2)
    ledger.rewind(2, journaled=[B, C])
    assert not ledger.is_open(A)
    assert ledger.is_open(B)
    assert ledger.is_open(C)
    assert ledger.fates() == {"open": 2, "trained": 1, "unused": 1}
    ledger.ended(B, 0, "trained", 2)


def test_rewind_leaves_drops_as_they_are(ledger: LeaseLedger) -> None:
    ledger.ended(A, 0, "stale", -1)
    ledger.rewind(0, journaled=[A])
    assert not ledger.is_open(A)


def test_a_journaled_lease_without_a_row_gets_one(ledger: LeaseLedger) -> None:
    lost = lease_id(Kind.PROPOSE_INDUCTION, 5)
    ledger.rewind(0, journaled=[lost, A])
    assert ledger.is_open(lost)
    assert ledger.following()[Kind.PROPOSE_INDUCTION] == 6


def test_numbers_go_on_after_the_last_of_each_kind(tmp_path: Path, ledger: LeaseLedger) -> None:
    ledger.granted(lease_id(Kind.EVAL, 41), 0)
    again = LeaseLedger(tmp_path / "tasks.sqlite", incarnation=1)
    assert again.following() == {Kind.SOLVE_DEDUCTION: 4, Kind.EVAL: 42}
    again.close()


def test_it_knows_how_far_the_run_is(tmp_path: Path, ledger: LeaseLedger) -> None:
    assert (ledger.trained, ledger.service) == (0, (None, None, None))
    ledger.ended(A, 0, "trained", 0)
    ledger.ended(B, 0, "trained", 1)
    ledger.serve(1)
    ledger.adapt(3)
    ledger.evaluated(0)
    again = LeaseLedger(tmp_path / "tasks.sqlite", incarnation=0)
    assert (again.trained, again.service) == (2, (1, 3, 0))
    again.forget()
    assert (again.trained, again.service) == (2, (None, None, None))
    again.close()


def test_what_is_written_together_is_written_as_a_whole(ledger: LeaseLedger) -> None:
    with pytest.raises(AzrError), ledger.together():
        ledger.ended(A, 0, "trained", 0)
        ledger.ended(A, 0, "trained", 0)
    assert ledger.fates() == {"open": 4}
