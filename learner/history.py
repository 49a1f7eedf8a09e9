"""Every batch that a run formed, as far as its journal was kept: the segments in use and those put aside (*.old).

A journal that is compacted writes again what no checkpoint contains, so a batch may stand in it several times: raw as
it was formed, settled as it was kept. Of equal leases the first counts, what was delivered: settled as the run settled
them, groups would answer for a replay with other settings what its settings are asked. A batch of other leases under
the number of one that a crash took with it takes its place. Only where groups are is held in memory; they are read when
their batch is asked for.
Not guaranteed: that batches are there without gaps. A journal that is not kept has none before the last checkpoint,
and those after it as they were settled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from common.types import Group
from learner.journal import group_at, records

_Place = tuple[Path, int]  # segment, byte


class History(Mapping[int, list[Group]]):
    """Step → groups of its batch, in lease order, read from the journal in `folder`, which nobody must be writing."""

    def __init__(self, folder: Path) -> None:
        self._places: dict[int, list[_Place]] = {}
        waiting: dict[int, _Place] = {}
        formed: dict[int, tuple[int, ...]] = {}  # leases by step
        segments = [path for path in folder.glob("*") if path.suffix in (".azj", ".old")]
        for path in sorted(segments, key=lambda path: int(path.stem)):
            for at, record in records(path):
                if isinstance(record, Group):
                    waiting[record.lease] = path, at
                elif all(lease in waiting for lease in record.leases):
                    places = [waiting.pop(lease) for lease in record.leases]
                    if formed.get(record.step) != record.leases:
                        formed[record.step], self._places[record.step] = record.leases, places

    def __getitem__(self, step: int) -> list[Group]:
        return [group_at(*place) for place in self._places[step]]

    def __iter__(self) -> Iterator[int]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)
