"""What an executor process does with a message from the wire."""

from __future__ import annotations

from common.errors import WireError
from common.jobs import Executor, Validate, Validation, Verdicts, Verify


async def serve(shard: Executor, message: object) -> Validation | Verdicts:
    """The reply to one request. WireError for a message that is no job."""
    match message:
        case Validate():
            return await shard.validate(message)
        case Verify():
            return await shard.verify(message)
    raise WireError(f"an executor does not serve {type(message).__name__}")
