"""The intake's side of the analysis: a process beside it that looks at batches after they were trained.

Invariants: handing a batch over takes no time and never waits; at most WAITING batches are kept for a process that
lags, the others are skipped and counted; whatever becomes of the process, the run goes on. It ends when the intake
closes it or dies, by whatever signal.

A batch travels as the journal's kind of records: the tasks that its proposers were shown, as far as the book knows
them, its groups, and BatchFormed. The answer is a line of JSON. Thread and pipe are blocking, so nothing depends on the
event loop that the intake runs on.

Not guaranteed: figures for every batch, or for the last ones of a run that is cut short.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import queue
import struct
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import IO, Any

from common.errors import AzrError
from common.messages import BatchFormed, Tasks
from common.types import Group, Task
from common.wire import pack_record, unpack_record

log = logging.getLogger(__name__)

WAITING = 2  # batches kept while one is looked at
PATIENCE = 1800.0  # seconds for a batch, after which the process is ended; on busy cores it gets little time
FAILURES = 3  # of the process in a row, after which there is no analysis any more
_LENGTH = struct.Struct("<Q")

Row = dict[str, Any]


class Analyst:
    """`command` starts the process (empty: there is none); `report` gets its rows, in the event loop of the intake;
    `find` knows tasks by their keys.

    `counts` are batches: analysed, skipped because it lagged or is given up, lost because it failed. A row of a lost
    batch has no figures.
    """

    def __init__(
        self, command: Sequence[str], report: Callable[[Row], None], find: Callable[[str], Task | None]
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._command, self._report, self._find = tuple(command), report, find
        self._queue: queue.SimpleQueue[tuple[int, list[Group], Tasks] | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._over = False

    @property
    def pid(self) -> int | None:
        """None while there is no process."""
        process = self._process
        return process.pid if process is not None else None

    def trained(self, step: int, batch: Sequence[Group]) -> None:
        """Hand a batch over."""
        if not self._command:
            return
        if self._over or self._queue.qsize() >= WAITING:
            self.counts["skipped"] += 1
            return
        if self._thread is None:
            loop = asyncio.get_running_loop()
            self._thread = threading.Thread(target=self._work, args=(loop,), name="analyst", daemon=True)
            self._thread.start()
        keys = dict.fromkeys(key for group in batch for key in group.references)
        shown = tuple(task for key in keys if (task := self._find(key)) is not None)
        self._queue.put((step, list(batch), Tasks(shown)))

    async def close(self, patience: float) -> None:
        """End the process, after at most `patience` seconds for what it still has to do; its rows are reported."""
        if self._thread is None:
            return
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, patience)
        self._over = True
        self._kill()
        await asyncio.to_thread(self._thread.join)

    # -- in the thread -------------------------------------------------------------------------------------------

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        failures = 0
        while (work := self._queue.get()) is not None:
            if self._over:
                self.counts["skipped"] += 1
                continue
            row: Row = {"step": work[0]}
            try:
                row |= self._ask(*work)
            except (OSError, ValueError, AzrError) as error:
                failures += 1
                self.counts["lost"] += 1
                log.warning("analysis of step %d is lost: %s", work[0], error)
                self._end()
                if failures == FAILURES:
                    log.warning("no more analysis in this run: its process failed %d times in a row", failures)
                    self._over = True
            else:
                failures = 0
                self.counts["analysed"] += 1
            counts = {f"analysis/{name}": self.counts[name] for name in ("skipped", "lost")}
            loop.call_soon_threadsafe(self._report, row | counts)
        self._end()

    def _ask(self, step: int, batch: list[Group], shown: Tasks) -> Row:
        """Its answer. OSError or ValueError if the process is gone or has none, AzrError if the batch cannot travel."""
        if self._process is None:
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
            )
        if self._over:  # closed meanwhile, perhaps before there was a process to kill
            raise OSError("the run is over")
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        limit = threading.Timer(PATIENCE, process.kill)
        limit.daemon = True
        limit.start()
        try:
            write_batch(process.stdin, step, batch, shown)
            line = process.stdout.readline()
        finally:
            limit.cancel()
        row = json.loads(line) if line.endswith(b"\n") else None
        if not isinstance(row, dict):
            raise ValueError(f"its process ended (exit code {process.poll()})")
        if "error" in row:
            raise ValueError(row["error"])
        return row

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            with suppress(BrokenPipeError), process:  # closes the pipes and waits
                pass

    def _kill(self) -> None:
        process = self._process
        if process is not None:
            process.kill()


def write_batch(stream: IO[bytes], step: int, batch: Sequence[Group], shown: Tasks) -> None:
    for record in (shown, *batch, BatchFormed(step, tuple(group.lease for group in batch))):
        blob = pack_record(record)
        stream.write(_LENGTH.pack(len(blob)))
        stream.write(blob)
    stream.flush()


def read_batches(stream: IO[bytes]) -> Iterator[tuple[int, list[Group], Mapping[str, Task]]]:
    """(step, groups, tasks by key) of each batch written, until the stream ends."""
    groups: list[Group] = []
    shown: dict[str, Task] = {}
    while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
        record = unpack_record(stream.read(_LENGTH.unpack(head)[0]))
        match record:
            case Tasks(tasks):
                shown = {task.key: task for task in tasks}
            case Group():
                groups.append(record)
            case BatchFormed(step):
                yield step, groups, shown
                groups = []
