"""After a death: ledger, book and admission return to where the weights are, and the journal gives back the rest.

Of a run that resumes, the weights are those of its checkpoint, and the version is the same. Where only the intake has
died, trainer ranks and engines go on with theirs: `step` batches are trained, the version in service is the one that
the ledger names (if it names none, nothing has been trained since the start), and batches in between are trained but
not yet in the book.

Invariants: a group that was acknowledged is in a batch, waits, or has ended with its reason; batches that had been
formed are the same groups in the same order; every other lease that was open ends unused, for whoever worked on it is
gone, or is told so when it renews.
"""

from __future__ import annotations

from common.config import Config
from common.types import Group
from learner.admission import Admission
from learner.intrinsic import Programs
from learner.journal import Contents
from learner.lease_ledger import LeaseLedger
from learner.settlement import rebuild
from learner.task_book import TaskBook


def recover(
    step: int,
    held: Contents,
    ledger: LeaseLedger,
    book: TaskBook,
    admission: Admission,
    config: Config,
    programs: Programs | None = None,
) -> dict[int, list[Group]]:
    """Return to `step` trained batches and the version in service. The batches that are not in the book, by number."""
    served = ledger.service.version
    version = step if served is None else served
    batches = held.following(version, config.learner.steps)
    ledger.rewind(step, [*held.waiting, *(group.lease for groups in batches.values() for group in groups)])
    rebuild(book, version, held.batches, config, programs)
    admission.resume(version, version + len(batches), ledger.following())
    for group in held.waiting.values():
        if not ledger.is_open(group.lease):
            continue
        newest = group.newest_version
        if newest is not None and newest > step:
            ledger.ended(group.lease, group.attempt, "lost_weights", -1)
        elif group.kind not in admission.quota:
            ledger.ended(group.lease, group.attempt, "unused", -1)
        else:
            admission.restore([group], config.staleness.widest_bound)
    return batches
