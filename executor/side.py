"""One of the two sides of a shard: programs run under one hash seed, in a fast lane first.

A lane is a fork server, which runs one child at a time. In the fast lane a child gets a slice of CPU time; what dies
there of time or memory is run again in the slow lane, once, with the full CPU limit and twice the memory, at a lower
priority, so a program that loops holds up nobody but its like. A side may run its inputs backwards and twice over:
what depends on order or state then differs from the other side.

Results are remembered by content, except those of time and memory, which depend on the load. A job that is present
at two deaths of a fork server is poison.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from common.config import ExecutorConfig
from common.errors import AzrError, PartFailed
from common.types import Status
from executor import claims, frames
from executor.cache import Cache, collect
from executor.claims import Claim
from executor.link import Died
from executor.outcome import LASTING, Outcome, agreed
from executor.process import Process
from executor.reader import Read, Reader
from executor.store import Store, place

_DEATHS = 2  # of fork servers, with the same job, that make the job poison
_MARGIN = 10.0  # seconds beyond the wall limit after which a silent fork server counts as dead
_DETAIL = 200  # bytes of a failure's reason
_WIDTH = 256  # inputs of one child
_MORE = 1 << 16  # bytes a child may write beyond its outputs
_REMEMBERED = 4096  # characters; longer outputs are run again rather than kept
_RETRIED = frozenset((Status.TIMEOUT_CPU, Status.TIMEOUT_WALL, Status.MEMORY))

logger = logging.getLogger(__name__)


_NOT_RUN = Claim(Status.INFRA, b"not run: another input of the job had failed")


@dataclass(frozen=True, slots=True)
class _Lane:
    process: Process
    cpu_limit: float  # seconds
    wall_limit: float  # seconds
    last: bool  # whether a verdict of time or memory is final here


@dataclass(slots=True)
class _Job:
    code: bytes
    deaths: int = 0
    slow: bool = False  # it has been in the slow lane


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
        self._fast = _Lane(fast, first, min(wall, config.wall_limit), False)
        self._slow = _Lane(slow, config.cpu_limit, config.wall_limit, True)
        self._reader, self._backwards, self._output_limit = reader, backwards, config.output_limit
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
        return self._fast.process.waiting

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
            work = self._execute(key, _Job(program.payload), distinct)
            task = asyncio.create_task(work)  # of its own: no caller's end is another's
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        (outcomes,) = await collect(answers)
        found = dict(zip(distinct, outcomes, strict=True))
        return [found[read.payload] for read in inputs]

    async def _execute(self, key: bytes, job: _Job, inputs: Sequence[bytes]) -> None:
        try:
            places = [key + number.to_bytes(4, "little") for number in range(len(inputs))]
            stored = self._stored(places)
            if len(stored) == len(inputs):
                self._outcomes.settle(key, [stored[each] for each in places], keep=True)
                return
            self.executions += len(inputs)
            outcomes = await self._outcomes_of(job, inputs)
            # What the slow lane says may depend on the memory it gives, and so on the load that led there.
            lasting = not job.slow and all(outcome.status in LASTING for outcome in outcomes)
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

    async def _outcomes_of(self, job: _Job, inputs: Sequence[bytes]) -> list[Outcome]:
        order = list(reversed(inputs)) * 2 if self._backwards else list(inputs)
        said = await self._claims(self._fast, job, order)
        if len(said) < len(order):
            job.slow = True
            said += await self._claims(self._slow, job, order[len(said) :])
        texts = [claim.data for claim in said if claim.status == Status.OK]
        reads = dict(zip(texts, await self._reader.values(texts), strict=True))
        if not self._backwards:
            return [_outcome(claim, reads) for claim in said]
        once, again = said[: len(inputs)][::-1], said[len(inputs) :][::-1]
        return [agreed(_outcome(a, reads), _outcome(b, reads)) for a, b in zip(once, again, strict=True)]

    async def _claims(self, lane: _Lane, job: _Job, inputs: Sequence[bytes]) -> list[Claim]:
        """A claim per input; of the fast lane perhaps fewer: the rest is the slow lane's."""
        found: list[Claim] = []
        width = _WIDTH
        while len(found) < len(inputs):
            rest = inputs[len(found) :]
            batch = rest[:width]
            try:
                reply = await lane.process.ask(self._request(lane, job.code, batch), lane.wall_limit + _MARGIN)
            except Died:
                job.deaths += 1
                if job.deaths >= _DEATHS:
                    return found + [Claim(Status.POISON)] * len(rest)
                continue
            said, death = claims.parse(reply, len(batch))
            found += said
            if death in _RETRIED and not lane.last:
                return found
            if death == Status.PROTOCOL and len(batch) > 1:
                width = 1  # garbage, and nobody to blame: one input per child
            elif death and not said:
                return found + [Claim(death) if data == batch[0] else _NOT_RUN for data in rest]
        return found

    def _request(self, lane: _Lane, code: bytes, inputs: Sequence[bytes]) -> bytes:
        bound = (self._output_limit + frames.ITEM.size) * len(inputs) + _MORE
        limits = round(lane.cpu_limit * 1000), round(lane.wall_limit * 1000)
        head = frames.REQUEST.pack(*limits, bound, self._output_limit, frames.NO_PROBE)
        return head + frames.pack([(frames.OK, code), *((frames.OK, data) for data in inputs)])


def _outcome(claim: Claim, reads: dict[bytes, Read]) -> Outcome:
    if claim.status != Status.OK:
        return Outcome(claim.status, claim.data[:_DETAIL].decode("utf-8", "replace"))
    read = reads[claim.data]
    if read.ok:
        return Outcome(Status.OK, read.payload.decode("utf-8", "replace"), read.key)
    crashed = read.status == Status.CHECKER_CRASH
    return Outcome(Status.CHECKER_CRASH if crashed else Status.PROTOCOL, "not a value's text")
