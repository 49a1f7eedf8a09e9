"""The fate of every lease, in SQLite: one row from its grant on, ended exactly once.

A lease whose fate is open when a run resumes was lost with its actor: it ends `unused`, unless the journal holds its
group. After a crash the ledger returns to the checkpoint: what was trained later is open again and trained again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from common.errors import AzrError
from common.types import Kind
from learner.leases import kind_of, sequence_of

_SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
    id INTEGER PRIMARY KEY, kind TEXT NOT NULL, incarnation INTEGER NOT NULL, granted INTEGER NOT NULL,
    attempt INTEGER, fate TEXT, step INTEGER);
"""


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

    def rewind(self, step: int, journaled: Iterable[int]) -> None:
        """Return to the checkpoint of `step` batches; `journaled` leases stay open, others that are open end.

        A journaled lease whose row a loss of power took gets one again.
        """
        keep = set(journaled)
        self._db.execute("BEGIN")
        self._db.executemany(
            "INSERT OR IGNORE INTO leases (id, kind, incarnation, granted) VALUES (?,?,?,?)",
            [(i, kind_of(i).value, self._incarnation, step) for i in sorted(keep)],
        )
        self._db.execute("UPDATE leases SET fate = NULL, step = NULL WHERE fate = 'trained' AND step >= ?", (step,))
        lost = [(i,) for (i,) in self._db.execute("SELECT id FROM leases WHERE fate IS NULL") if i not in keep]
        self._db.executemany("UPDATE leases SET fate = 'unused' WHERE id = ?", lost)
        self._db.execute("COMMIT")

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
