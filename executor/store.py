"""Outcomes that outlive a run, by content: one SQLite file (WAL) in a folder that the shards of one machine share.

An outcome is found again only under all it depends on: the executor's own sources, the interpreter, the policy, the
limits, the hash seed, program and input. Only statuses that a second run would repeat are stored; time, memory, crashes
and failures of the executor depend on the load and never are. Writers wait for each other. What `put` returned from
survives the death of its process; a loss of power may take the last of it, never the file.

Rows are believed: the file is trusted like the run folder, and whoever can write it decides verdicts. Programs cannot,
having no file system. Not guaranteed: sharing between machines; a bound on size (deleting the folder costs only time).
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from fcntl import LOCK_EX, flock
from functools import cache
from pathlib import Path

from common.config import ExecutorConfig
from common.errors import ConfigError, PartFailed
from executor.keys import digest
from executor.outcome import LASTING, Outcome

FORMAT = 1
_SCHEMA = "CREATE TABLE outcomes (place BLOB PRIMARY KEY, status TEXT, text BLOB, key BLOB) WITHOUT ROWID"
_BUSY = 10.0  # seconds to wait for another writer, who holds the lock for about a millisecond
_CHECKPOINT = 250  # pages; `put` pays for the syncing of a checkpoint, so small ones: some milliseconds each
_ANEW = "move it away together with its -wal and -shm (outcomes are computed again), or name another executor.store"
_ROOM = "give executor.store a writable folder with room on a disk of this machine, or leave it empty"


@dataclass(frozen=True, slots=True)
class Scope:
    """All that an outcome depends on besides program and input."""

    engine: bytes  # digest of the executor's sources, the rules of the policy among them
    python: str
    policy: bool
    cpu_limit: float  # seconds
    memory_mb: int
    output_limit: int  # bytes
    hash_seed: int

    @classmethod
    def of(cls, config: ExecutorConfig, *, policy: bool, hash_seed: int) -> Scope:
        limits = (config.cpu_limit, config.memory_mb, config.output_limit)
        return cls(engine(Path(__file__).parent), sys.version, policy, *limits, hash_seed)

    def digest(self) -> bytes:
        return digest(repr(astuple(self)).encode())


def place(scope: bytes, code: bytes, data: bytes) -> bytes:
    """The place of what marshalled program `code` does with `data`, all marshalled inputs of a job; `scope` is
    Scope.digest(). A side adds the number of the input."""
    return digest(scope + digest(code) + digest(data))


@cache
def engine(folder: Path) -> bytes:
    """Digest of the sources in `folder`: whatever changes there, no outcome of before is found again."""
    sources = sorted(file for file in folder.iterdir() if file.suffix in (".py", ".c"))
    return digest(b"".join(digest(file.name.encode()) + digest(file.read_bytes()) for file in sources))


class Store:
    def __init__(self, path: Path) -> None:
        """Open or begin the store in folder `path`. ConfigError if the folder cannot hold it; PartFailed, with the
        file left as it is, if that is damaged or of another format."""
        self._file = path / "outcomes.sqlite"
        try:
            path.mkdir(parents=True, exist_ok=True)
            turn = self._file.with_suffix(".lock").open("ab")
        except OSError as error:
            raise ConfigError(f"executor.store: {path} cannot hold a file ({error.strerror}): {_ROOM}") from error
        with turn, self._named():
            flock(turn, LOCK_EX)  # SQLite's own waiting does not cover two who change a new file to WAL at once
            self._db = sqlite3.connect(self._file, timeout=_BUSY, isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def get(self, keys: Sequence[bytes]) -> dict[bytes, Outcome]:
        """What is known of `keys`, some thousands at most. PartFailed if the file cannot be read."""
        marks = ",".join("?" * len(keys))
        with self._named():
            rows = self._db.execute(f"SELECT place, status, text, key FROM outcomes WHERE place IN ({marks})", keys)
            return {place: Outcome(status, text.decode("utf-8", "surrogatepass"), k) for place, status, text, k in rows}

    def put(self, outcomes: Mapping[bytes, Outcome]) -> None:
        """Keep those of a lasting status, all or none. PartFailed if the file cannot be written."""
        kept = {place: outcome for place, outcome in outcomes.items() if outcome.status in LASTING}
        if kept:
            rows = [(place, o.status, o.text.encode("utf-8", "surrogatepass"), o.key) for place, o in kept.items()]
            with self._named(), self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany("INSERT OR IGNORE INTO outcomes VALUES (?,?,?,?)", rows)

    def close(self) -> None:
        self._db.close()

    def _prepare(self) -> None:
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        (tables,) = self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if found != FORMAT and (found or tables):
            raise PartFailed(f"result store {self._file}", f"of format {found}, readable is {FORMAT}", hint=_ANEW)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        self._db.execute(f"PRAGMA wal_autocheckpoint={_CHECKPOINT}")
        if not found:
            with self._db:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.execute(_SCHEMA)
                self._db.execute(f"PRAGMA user_version={FORMAT}")

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            hint = _ROOM if isinstance(error, sqlite3.OperationalError) else _ANEW
            raise PartFailed(f"result store {self._file}", str(error), hint=hint) from error
