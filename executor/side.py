"""One of the two sides of a shard: programs run under one hash seed, in a fast lane first.

A lane (executor/lane.py) is a fork server, which runs one child at a time. In the fast lane a child gets a slice of CPU
time, and confined jobs may share one; what dies there of time or memory is run again in the slow lane, once, with the
full CPU limit and twice the memory, at a lower priority, so a program that loops holds up nobody but its like. A side
may run its inputs backwards and twice over: what depends on order or state then differs from the other side.

Results are remembered by content, except those of time and memory, which depend on the load.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from common.config import ExecutorConfig
from common.errors import AzrError, PartFailed
from common.types import Status
from executor import frames
from executor.cache import Cache, collect
from executor.claims import Claim
from executor.lane import Job, Lane
from executor.outcome import LASTING, Outcome, agreed
from executor.process import Process
from executor.reader import Read, Reader
from executor.store import Store, place

_DETAIL = 200  # bytes of a failure's reason
_REMEMBERED = 4096  # characters; longer outputs are run again rather than kept

logger = logging.getLogger(__name__)


class Side:
    def __init__(
        self,
        config: ExecutorConfig,
        reader: Reader,
        fast: Process,
        slow: Process,
        *,
        backwards: bool,
        scope: bytes = b"",
        store: Store | None = None,
    ) -> None:
        """`fast` and `slow`: its fork servers. `backwards`: inputs reversed and twice over. `scope`: of all that is
        kept in `store`."""
        first = min(config.first_slice, config.cpu_limit)
        wall = max(0.5, config.wall_limit * first / config.cpu_limit)
        self._fast = Lane(
            fast,
            cpu_limit=first,
            wall_limit=min(wall, config.wall_limit),
            output_limit=config.output_limit,
            last=False,
            together=config.together,
            backwards=backwards,
        )
        self._slow = Lane(
            slow,
            cpu_limit=config.cpu_limit,
            wall_limit=config.wall_limit,
            output_limit=config.output_limit,
            last=True,
        )
        self._reader, self._backwards = reader, backwards
        self._outcomes: Cache[bytes, list[Outcome]] = Cache(config.cache)
        self._scope, self._store = scope, store
        self._running: set[asyncio.Task[None]] = set()
        self.executions = 0  # (program, input) pairs that were run, not remembered

    @property
    def processes(self) -> tuple[Process, ...]:
        return self._fast.process, self._slow.process

    @property
    def load(self) -> int:
        """Jobs at the fast lane."""
        return self._fast.load

    async def close(self) -> None:
        """No process is left; jobs under way fail with PartFailed."""
        for process in self.processes:
            await process.close()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def run(self, program: Read, inputs: Sequence[Read]) -> list[Outcome]:
        """An outcome per input, all of them ok reads; from memory, from a run under way, or from a new one.

        The inputs stand together: after one that kills its child the others need not run, and are `infra`.
        SandboxUnavailable if a fork server cannot be had again.
        """
        distinct = list(dict.fromkeys(read.payload for read in inputs))
        key = place(self._scope, program.payload, frames.pack((frames.OK, data) for data in distinct))
        answers, fresh = self._outcomes.claim([key])
        if fresh:
            confined = program.confined and all([read.confined for read in inputs])
            work = self._execute(key, Job(program.payload, tuple(distinct), confined))
            task = asyncio.create_task(work)  # of its own: no caller's end is another's
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        (outcomes,) = await collect(answers)
        found = dict(zip(distinct, outcomes, strict=True))
        return [found[read.payload] for read in inputs]

    async def _execute(self, key: bytes, job: Job) -> None:
        try:
            places = [key + number.to_bytes(4, "little") for number in range(len(job.inputs))]
            stored = self._stored(places)
            if len(stored) == len(job.inputs):
                self._outcomes.settle(key, [stored[each] for each in places], keep=True)
                return
            self.executions += len(job.inputs)
            outcomes, slow = await self._outcomes_of(job)
            # What the slow lane says may depend on the memory it gives, and so on the load that led there.
            lasting = not slow and all(outcome.status in LASTING for outcome in outcomes)
            if lasting:
                self._keep(dict(zip(places, outcomes, strict=True)))
            short = sum(len(outcome.text) for outcome in outcomes) <= _REMEMBERED
            self._outcomes.settle(key, outcomes, keep=lasting and short)
        except Exception as error:
            self._outcomes.fail(error, [key])
            if not isinstance(error, AzrError):
                raise

    def _stored(self, keys: Sequence[bytes]) -> dict[bytes, Outcome]:
        try:
            return self._store.get(keys) if self._store else {}
        except PartFailed as error:
            return self._do_without(error)

    def _keep(self, outcomes: dict[bytes, Outcome]) -> None:
        try:
            if self._store:
                self._store.put(outcomes)
        except PartFailed as error:
            self._do_without(error)

    def _do_without(self, error: PartFailed) -> dict[bytes, Outcome]:
        """A store that fails in the middle costs time, not results."""
        logger.error("going on without the result store: %s", error)
        self._store = None
        return {}

    async def _outcomes_of(self, job: Job) -> tuple[list[Outcome], bool]:
        """And whether the slow lane has been asked."""
        order = job.inputs[::-1] * 2 if self._backwards else job.inputs
        said = await self._fast.claims(job, order)
        slow = len(said) < len(order)
        if slow:
            said += await self._slow.claims(job, order[len(said) :])
        texts = [claim.data for claim in said if claim.status == Status.OK]
        reads = dict(zip(texts, await self._reader.values(texts), strict=True))
        if not self._backwards:
            return [_outcome(claim, reads) for claim in said], slow
        width = len(job.inputs)
        once, again = said[:width][::-1], said[width:][::-1]
        return [agreed(_outcome(a, reads), _outcome(b, reads)) for a, b in zip(once, again, strict=True)], slow


def _outcome(claim: Claim, reads: dict[bytes, Read]) -> Outcome:
    if claim.status != Status.OK:
        return Outcome(claim.status, claim.data[:_DETAIL].decode("utf-8", "replace"))
    read = reads[claim.data]
    if read.ok:
        return Outcome(Status.OK, read.payload.decode("utf-8", "replace"), read.key)
    crashed = read.status == Status.CHECKER_CRASH
    return Outcome(Status.CHECKER_CRASH if crashed else Status.PROTOCOL, "not a value's text")
