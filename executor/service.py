"""What an executor process does with a message from the wire."""

from __future__ import annotations

from common.clock import Clock, within
from common.errors import PartFailed, WireError
from common.jobs import Executor, Validate, Validation, Verdicts, Verify


async def serve(shard: Executor, message: object, deadline: float, clock: Clock) -> Validation | Verdicts:
    """The reply to one request.

    WireError for a message that is no job. PartFailed after `deadline` seconds: whoever asked has given up by then,
    as clients count from before they send.
    """
    try:
        match message:
            case Validate():
                return await within(clock, deadline, shard.validate(message))
            case Verify():
                return await within(clock, deadline, shard.verify(message))
    except TimeoutError:
        raise PartFailed("executor", f"a job was not done within executor.deadline ({deadline:g} s)") from None
    raise WireError(f"an executor does not serve {type(message).__name__}")
