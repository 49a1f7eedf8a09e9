"""The client's side of the executor: several shards that look like one.

A job goes to the shard its program prefers (rendezvous hash), so equal programs meet in one memory; if that shard
fails, to the next, and a result does not depend on which one gave it. Jobs are idempotent, so asking twice is safe.
When every shard has failed the status is `infra`, never an exception and never "wrong".
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

from common.errors import PartFailed, WireError
from common.jobs import Validate, Validation, Verdict, Verdicts, Verify
from common.types import Status

Reply = TypeVar("Reply", Validation, Verdicts)

logger = logging.getLogger(__name__)


class Client(Protocol):
    async def request(self, message: Any) -> Any:
        """The one reply. WireError or PartFailed when there is none."""
        ...


class Pool:
    """Implements common.jobs.Executor."""

    def __init__(self, shards: Sequence[Client]) -> None:
        self._shards = list(shards)

    def replace(self, index: int, shard: Client) -> None:
        """Send the jobs of shard `index` to the client `shard` from here on."""
        self._shards[index] = shard

    async def validate(self, job: Validate) -> Validation:
        infra = Validation(Status.INFRA, "no executor shard answers")
        return await self._ask(job, job.program, infra)

    async def verify(self, job: Verify) -> Verdicts:
        infra = Verdicts((Verdict(False, Status.INFRA, "no executor shard answers"),) * len(job.answers))
        reply = await self._ask(job, job.task.program, infra)
        return reply if len(reply.verdicts) == len(job.answers) else infra

    async def _ask(self, job: Validate | Verify, program: str, infra: Reply) -> Reply:
        for index in order(program, len(self._shards)):
            try:
                reply = await self._shards[index].request(job)
            except (WireError, PartFailed) as error:
                logger.warning("executor shard %d: %s", index, error)
                continue
            if isinstance(reply, type(infra)):
                return reply
            logger.warning("executor shard %d: answered %s", index, type(reply).__name__)
        return infra


def order(program: str, shards: int) -> list[int]:
    """All shard indices, the program's favourite first; removing a shard moves only the programs it had."""
    text = program.encode("utf-8", "surrogatepass")
    weights = [hashlib.blake2b(text, key=str(index).encode(), digest_size=8).digest() for index in range(shards)]
    return sorted(range(shards), key=weights.__getitem__, reverse=True)
