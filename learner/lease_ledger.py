"""The fate of every lease, in SQLite: one row from its grant on, ended exactly once; and how far the run is.

A lease whose fate is open when a run resumes was lost with its actor: it ends `unused`, unless the journal holds its
group. After a crash the ledger returns to the checkpoint: what was trained later is open again and trained again.
After the death of the intake alone it returns to where it is, which opens nothing again. A batch is trained in the
ledger wholly or not at all.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from common.errors import AzrError
from common.types import Kind
from learner.leases import kind_of, sequence_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, incarnation INTEGER NOT NULL, granted INTEGER NOT NULL,
    attempt INTEGER, fate TEXT, step INTEGER);
CREATE TABLE IF NOT EXISTS service (version INTEGER, eta INTEGER, evaluated INTEGER);
INSERT INTO service SELECT NULL, NULL, NULL WHERE NOT EXISTS (SELECT * FROM service);
"""


class Service(NamedTuple):
    """What the intake of an incarnation was at; None: nothing yet."""

    version: int | None  # in service
    eta: int | None  # in force (staleness.auto)
    evaluated: int | None  # version of the last round of evaluation that is over


class LeaseLedger:
    """Rows are (lease, version at grant, attempt that ended it, fate, step that trained it)."""

    def __init__(self, path: Path, incarnation: int) -> None:
        self._db = sqlite3.connect(path, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.executescript(_SCHEMA)
        self._incarnation = incarnation

    def granted(self, lease: int, version: int) -> None:
        self._db.execute(
            "INSERT INTO leases (id, kind, incarnation, granted) VALUES (?,?,?,?)",
            (lease, kind_of(lease).value, self._incarnation, version),
        )

    def ended(self, lease: int, attempt: int, fate: str, step: int) -> None:
        """Raises AzrError if the lease was never granted or has ended before."""
        done = self._db.execute(
            "UPDATE leases SET attempt = ?, fate = ?, step = ? WHERE id = ? AND fate IS NULL",
            (attempt, fate, step, lease),
        )
        if done.rowcount != 1:
            raise AzrError(f"lease {lease} ends as {fate}, but it is not open in the ledger")

    @contextmanager
    def together(self) -> Iterator[None]:
        """What is written inside is on file as a whole, or, after a crash or an error, not at all."""
        self._db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def rewind(self, step: int, journaled: Iterable[int]) -> None:
        """Return to the checkpoint of `step` batches; `journaled` leases stay open, others that are open end.

        A journaled lease whose row a loss of power took gets one again.
        """
        keep = set(journaled)
        with self.together():
            self._db.executemany(
                "INSERT OR IGNORE INTO leases (id, kind, incarnation, granted) VALUES (?,?,?,?)",
                [(i, kind_of(i).value, self._incarnation, step) for i in sorted(keep)],
            )
            self._db.execute("UPDATE leases SET fate = NULL, step = NULL WHERE fate = 'trained' AND step >= ?", (step,))
            lost = [(i,) for (i,) in self._db.execute("SELECT id FROM leases WHERE fate IS NULL") if i not in keep]
            self._db.executemany("UPDATE leases SET fate = 'unused' WHERE id = ?", lost)

    def serve(self, version: int) -> None:
        """`version` is in service from now on."""
        self._db.execute("UPDATE service SET version = ?", (version,))

    def adapt(self, eta: int) -> None:
        """`eta` is in force from now on."""
        self._db.execute("UPDATE service SET eta = ?", (eta,))

    def evaluated(self, version: int) -> None:
        """The round of `version` is over."""
        self._db.execute("UPDATE service SET evaluated = ?", (version,))

    def forget(self) -> None:
        """A new incarnation begins: nothing of it is in service."""
        self._db.execute("UPDATE service SET version = NULL, eta = NULL, evaluated = NULL")

    @property
    def service(self) -> Service:
        return Service(*self._db.execute("SELECT version, eta, evaluated FROM service").fetchone())

    @property
    def trained(self) -> int:
        """Batches trained in the lineage of the newest weights."""
        newest: int | None = self._db.execute("SELECT max(step) FROM leases WHERE fate = 'trained'").fetchone()[0]
        return 0 if newest is None else newest + 1

    def is_open(self, lease: int) -> bool:
        row = self._db.execute("SELECT fate FROM leases WHERE id = ?", (lease,)).fetchone()
        return row is not None and row[0] is None

    def following(self) -> dict[Kind, int]:
        """For each kind the first sequence number no lease has used."""
        rows = self._db.execute("SELECT kind, max(id) FROM leases GROUP BY kind")
        return {Kind(kind): sequence_of(top) + 1 for kind, top in rows}

    def fates(self) -> dict[str, int]:
        """Leases by fate; "open" counts those without one."""
        return dict(self._db.execute("SELECT coalesce(fate, 'open'), count(*) FROM leases GROUP BY fate"))

    def close(self) -> None:
        self._db.close()
