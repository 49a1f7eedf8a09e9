"""The journal: accepted groups and formed batches on disk, so that a crash loses none of them.

One record per accepted group (before it is acknowledged) and per formed batch, each with its own CRC, appended to
numbered segment files. `compact` writes what a new checkpoint does not contain into a fresh segment and drops the
older ones. A record cut by a crash ends its segment's reading; it was never acknowledged.

Appends reach the operating system at once and the disk at `sync`: death of a process loses nothing, loss of power at
most what came since the last batch.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

from common.errors import WireError
from common.messages import BatchFormed
from common.tally import Tally
from common.types import Group
from common.wire import pack_record, unpack_record
from learner.durable import sync
from learner.timed import JOURNAL

log = logging.getLogger(__name__)

_LENGTH = struct.Struct("<I")


@dataclass
class Contents:
    """What a journal holds: batches in the order formed, each with its groups, and groups in no batch yet."""

    batches: dict[int, list[Group]] = field(default_factory=dict)
    waiting: dict[int, Group] = field(default_factory=dict)

    def following(self, first: int, end: int) -> dict[int, list[Group]]:
        """Batches `first`, `first` + 1, … as far as they go without a gap, and before `end`."""
        steps = takewhile(self.batches.__contains__, range(first, end))
        return {step: self.batches[step] for step in steps}


class Journal:
    """Append-only segments in `folder`. `keep`: superseded segments are renamed to *.old instead of deleted, for
    learner/history.py."""

    def __init__(self, folder: Path, *, keep: bool = False, tally: Tally | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._keep = folder, keep
        self._tally = tally or Tally()
        self._number = max((int(p.stem) for p in folder.glob("*.azj")), default=0)
        self._open_next()

    def append(self, record: Group | BatchFormed) -> None:
        with self._tally.during(JOURNAL):
            self._write(self._file.fileno(), record)

    def sync(self) -> None:
        with self._tally.during(JOURNAL):
            os.fsync(self._file.fileno())

    def compact(self, batches: Iterable[tuple[int, list[Group]]], waiting: Iterable[Group]) -> None:
        """Start over with `batches` not yet in a checkpoint and `waiting` groups; older segments go."""
        old = sorted(self._folder.glob("*.azj"))
        self._file.close()
        self._number += 1
        target = self._folder / f"{self._number:06d}.azj"
        partial = target.with_suffix(".part")
        with partial.open("wb", buffering=0) as file:
            for step, groups in batches:
                for group in groups:
                    self._write(file.fileno(), group)
                self._write(file.fileno(), BatchFormed(step, tuple(g.lease for g in groups)))
            for group in waiting:
                self._write(file.fileno(), group)
            os.fsync(file.fileno())
        partial.rename(target)
        sync(self._folder)
        for path in old:
            if self._keep:
                path.rename(path.with_suffix(".old"))
            else:
                path.unlink()
        self._open_next()

    def read(self) -> Contents:
        """Everything in the current segments."""
        contents = Contents()
        for path in sorted(self._folder.glob("*.azj")):
            for _, record in records(path):
                if isinstance(record, Group):
                    contents.waiting[record.lease] = record
                else:
                    groups = [contents.waiting.pop(lease) for lease in record.leases if lease in contents.waiting]
                    if len(groups) == len(record.leases):
                        contents.batches[record.step] = groups
        return contents

    def close(self) -> None:
        self.sync()
        self._file.close()

    def _open_next(self) -> None:
        self._number += 1
        self._file = (self._folder / f"{self._number:06d}.azj").open("ab", buffering=0)

    def _write(self, fd: int, record: Group | BatchFormed) -> None:
        blob = pack_record(record)
        data = memoryview(_LENGTH.pack(len(blob)) + blob)
        while data:
            data = data[os.write(fd, data) :]


def records(path: Path) -> Iterator[tuple[int, Group | BatchFormed]]:
    """What a segment holds, each with the byte at which it begins; logs where reading had to stop."""
    data = path.read_bytes()
    at = 0
    while at + _LENGTH.size <= len(data):
        (length,) = _LENGTH.unpack_from(data, at)
        blob = data[at + _LENGTH.size : at + _LENGTH.size + length]
        if len(blob) < length:
            break
        try:
            record = unpack_record(blob)
        except WireError as error:
            log.warning("%s: what follows byte %d cannot be read: %s", path, at, error)
            return
        if isinstance(record, Group | BatchFormed):
            yield at, record
        at += _LENGTH.size + length
    if at < len(data):
        log.warning("%s: its last record is cut at byte %d", path, at)


def group_at(path: Path, at: int) -> Group:
    """The group that `records` found at byte `at`. WireError if the file has changed since."""
    with path.open("rb") as file:
        file.seek(at)
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        record = unpack_record(file.read(length))
    if not isinstance(record, Group):
        raise WireError(f"{path} holds no group at byte {at}")
    return record
