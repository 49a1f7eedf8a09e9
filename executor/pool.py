"""The client's side of the executor: several shards that look like one.

A job goes to the shard its program prefers (rendezvous hash), so equal programs meet in one memory, unless that shard
has more than its part of this client's jobs under way (bounded load): then to the next in the program's order. A
result does not depend on which shard gave it.

Invariants: every job ends, with one verdict, within `executor.deadline` seconds; without an answer its status is
`infra`, never an exception and never "wrong". A shard that does not answer, or answers `infra`, is followed by at most
RETRIES others. One that its client gave up is asked only when no other is left, until it is replaced or answers again.
A job that ends, however it ends, gives its credit back.

Not guaranteed: that a job ran only once. Jobs are idempotent, and the first answer counts.
"""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, TypeVar

from common.clock import Clock, within
from common.config import ExecutorConfig
from common.errors import PartFailed, WireError
from common.jobs import Validate, Validation, Verdict, Verdicts, Verify
from common.types import Status

RETRIES = 2
SPILL = 1.25  # times the mean number of jobs under way, beyond which a program goes to its next shard

Reply = TypeVar("Reply", Validation, Verdicts)

logger = logging.getLogger(__name__)


class Client(Protocol):
    async def request(self, message: Any) -> Any:
        """The one reply. WireError when the server turned the message down, PartFailed when the server is gone."""
        ...


@dataclass(slots=True, eq=False)
class _Shard:
    index: int
    client: Client
    running: int = 0  # jobs of this pool, those that wait for a credit included
    failed: bool = False


class Pool:
    """Implements common.jobs.Executor."""

    def __init__(self, shards: Sequence[Client], config: ExecutorConfig, clock: Clock) -> None:
        self._shards = [_Shard(index, client) for index, client in enumerate(shards)]
        self._config, self._clock = config, clock

    def replace(self, index: int, shard: Client) -> None:
        """Send the jobs of shard `index` to the client `shard` from here on."""
        self._shards[index] = _Shard(index, shard)

    @property
    def room(self) -> int:
        """Jobs that could begin now: the free credits of the shards that live."""
        return sum(max(0, self._config.credits - shard.running) for shard in self._shards if not shard.failed)

    async def validate(self, job: Validate) -> Validation:
        return await self._ask(job, job.program, Validation(Status.INFRA, "no executor shard has an answer"))

    async def verify(self, job: Verify) -> Verdicts:
        verdict = Verdict(False, Status.INFRA, "no executor shard has an answer")
        return await self._ask(job, job.task.program, Verdicts((verdict,) * len(job.answers)))

    async def _ask(self, job: Validate | Verify, program: str, infra: Reply) -> Reply:
        try:
            return await within(self._clock, self._config.deadline, self._try(job, program, infra))
        except TimeoutError:
            logger.warning("a job was not done within executor.deadline (%g s)", self._config.deadline)
            return infra

    async def _try(self, job: Validate | Verify, program: str, infra: Reply) -> Reply:
        tried: set[_Shard] = set()
        while len(tried) <= RETRIES and (shard := self._choose(program, tried)) is not None:
            tried.add(shard)
            shard.running += 1
            try:
                reply = await shard.client.request(job)
                shard.failed = False
            except PartFailed as error:
                if not shard.failed:
                    logger.warning("executor shard %d: %s", shard.index, error)
                shard.failed = True
                continue
            except WireError as error:
                logger.warning("executor shard %d: %s", shard.index, error)
                continue
            finally:
                shard.running -= 1
            if _answers(reply, infra):
                return reply
            logger.warning("executor shard %d: no answer to %s: %.200r", shard.index, type(job).__name__, reply)
        return infra

    def _choose(self, program: str, tried: set[_Shard]) -> _Shard | None:
        left = [s for s in (self._shards[i] for i in order(program, len(self._shards))) if s not in tried]
        shards = [shard for shard in left if not shard.failed] or left
        return shards[bounded([shard.running for shard in shards])] if shards else None


def order(program: str, shards: int) -> list[int]:
    """All shard indices, the program's favourite first; removing a shard moves only the programs it had."""
    text = program.encode("utf-8", "surrogatepass")
    weights = [hashlib.blake2b(text, key=str(index).encode(), digest_size=8).digest() for index in range(shards)]
    return sorted(range(shards), key=weights.__getitem__, reverse=True)


def bounded(running: Sequence[int]) -> int:
    """The first place in `running`, jobs under way of at least one shard, where one more is not too many.

    Rounding up keeps a lone job with its favourite, and leaves at least one place below the limit.
    """
    limit = math.ceil(SPILL * (sum(running) + 1) / len(running))
    return next(place for place, count in enumerate(running) if count < limit)


def _answers(reply: object, infra: Reply) -> TypeGuard[Reply]:
    """Is `reply` of the shape of `infra`, and does it say something about every part of the job?"""
    match reply, infra:
        case Validation(), Validation():
            return reply.status != Status.INFRA
        case Verdicts(), Verdicts():
            known = [verdict.status != Status.INFRA for verdict in reply.verdicts]
            return len(known) == len(infra.verdicts) and all(known)
    return False
