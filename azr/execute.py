"""`azr execute`: a file of programs and inputs through the executor, one JSON row of outputs for each.

The rows are answered by several shards in this process and printed in the order of the file, each as soon as it and
all before it have an answer. A few jobs per shard are in flight or wait to be printed, and a reader of standard output
that stops reading stops the work, not the clock of a job. What a program does wrong is data; an executor that fails is
an error.

Not guaranteed: that standard output has every row when the executor fails. What is there is right, and in order.
"""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import sys
from collections import Counter, deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from azr.rows import Row
from common.config import ExecutorConfig
from common.errors import PartFailed
from common.jobs import Validate, Validation, Verify
from common.types import Status, Task, TaskType
from executor.shard import Shard

DIFFERENT = 1  # exit codes
BROKEN_PIPE = 128 + signal.SIGPIPE
_SHOWN = 200  # characters of a text in a message


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a row. `difference` from what the row wants, by value; empty if there is none, or nobody asked."""

    row: Row
    validation: Validation
    difference: str = ""

    @property
    def identical(self) -> bool:
        """It is ok, and its outputs are letter by letter those that the row wants."""
        return self.validation.status == Status.OK and self.validation.outputs == self.row.outputs

    def line(self) -> bytes:
        found = self.validation
        fields = {"id": self.row.id, "status": found.status, "outputs": found.outputs, "detail": found.detail}
        return json.dumps(fields).encode() + b"\n"


@dataclass(slots=True)
class Tally:
    """Of checked answers."""

    statuses: Counter[str] = field(default_factory=Counter)
    identical: int = 0
    different: int = 0

    def add(self, answer: Answer) -> None:
        self.statuses[answer.validation.status] += 1
        self.identical += answer.identical
        self.different += bool(answer.difference)

    def __str__(self) -> str:
        ok = self.statuses[Status.OK]
        failed = self.statuses.total() - ok
        different = self.different - failed  # what failed differs, too
        by_value = ok - self.identical - different
        kinds = f"{self.identical} text-identical, {by_value} equal by value only, {different} different"
        others = [f"{count} {status}" for status, count in sorted(self.statuses.items()) if status != Status.OK]
        return f"{ok + failed} rows: {', '.join([f'{ok} ok ({kinds})', *others])}"


def execute(rows: Sequence[Row], config: ExecutorConfig, *, shards: int, policy: bool, check: bool) -> int:
    """Answer `rows` on standard output; returns the exit code. SandboxUnavailable or PartFailed: the executor failed.

    `check`: compare with the outputs in the rows; differences and a summary go to standard error.
    """
    try:
        return asyncio.run(
            run(rows, [Shard(config, policy=policy) for _ in range(shards)], config.credits, check=check)
        )
    except BrokenPipeError:  # whoever read standard output has seen enough
        return BROKEN_PIPE


@asynccontextmanager
async def started(shards: Sequence[Shard]) -> AsyncIterator[None]:
    """With all of them up; afterwards none of their processes is left. SandboxUnavailable if one does not come up."""
    try:
        for failure in await asyncio.gather(*[shard.start() for shard in shards], return_exceptions=True):
            if failure is not None:
                raise failure
        yield
    finally:
        await asyncio.gather(*[shard.close() for shard in shards])


async def run(rows: Sequence[Row], shards: Sequence[Shard], width: int, *, check: bool) -> int:
    """`width`: jobs in flight per shard. Else as `execute`; BrokenPipeError if nobody reads standard output."""
    async with started(shards):
        printing = asyncio.create_task(_print(rows, shards, width, check))
        failures = [asyncio.create_task(shard.failed()) for shard in shards]
        try:
            await asyncio.wait([printing, *failures], return_when=asyncio.FIRST_COMPLETED)
            for failure in failures:
                if failure.done() and not printing.done():
                    raise failure.result()
            return await printing
        finally:
            for task in (printing, *failures):
                task.cancel()
            await asyncio.gather(printing, *failures, return_exceptions=True)


async def _print(rows: Sequence[Row], shards: Sequence[Shard], width: int, check: bool) -> int:
    """`width`: jobs in flight per shard."""
    free: asyncio.Queue[Shard] = asyncio.Queue()
    for shard in list(shards) * width:
        free.put_nowait(shard)
    output, tally = Output(sys.stdout.fileno()), Tally()
    pending: deque[asyncio.Task[Answer]] = deque()
    ahead = 2 * free.qsize()  # more than can run: those behind a slow one go on before it is printed
    left = iter(rows)
    try:
        while True:
            while len(pending) < ahead and (row := next(left, None)) is not None:
                pending.append(asyncio.create_task(_answer(row, free, check)))
            if not pending:
                break
            answer = await pending[0]
            pending.popleft()
            tally.add(answer)
            await output.write(answer.line())
            if answer.difference:
                print(f"azr: {answer.row.id}: {answer.difference}", file=sys.stderr)
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
    if check:
        print(f"azr: {tally}", file=sys.stderr)
    if silent := tally.statuses[Status.INFRA]:
        raise PartFailed("executor", f"gave no answer to {silent} of {len(rows)} rows (status infra)")
    return DIFFERENT if tally.different else 0


async def _answer(row: Row, free: asyncio.Queue[Shard], check: bool) -> Answer:
    shard = await free.get()
    try:
        answer = Answer(row, await shard.validate(Validate(row.program, row.inputs)))
        if not check or answer.identical:
            return answer
        return replace(answer, difference=await _difference(row, answer.validation, shard))
    finally:
        free.put_nowait(shard)


async def _difference(row: Row, found: Validation, shard: Shard) -> str:
    """Values are compared by the shard's checker: the outputs that a row wants are not evaluated here either."""
    if found.status != Status.OK:
        return f"{found.status} {found.detail}"[:_SHOWN]
    for given, output, wanted in zip(row.inputs, found.outputs, row.outputs, strict=True):
        task = Task(TaskType.DEDUCTION, row.program, (given,), (output,), key="")
        (verdict,) = (await shard.verify(Verify(task, (wanted,)))).verdicts
        if verdict.status == Status.INFRA:
            raise PartFailed("executor", f"could not compare two values: {verdict.detail}")
        if not verdict.correct:
            return f"f({given[:_SHOWN]}) gives {output[:_SHOWN]} and should give {wanted[:_SHOWN]}"
    return ""


class Output:
    """Writes that wait for a slow reader without holding up the event loop, where the time-outs of jobs run."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    async def write(self, data: bytes) -> None:
        """All of `data`. BrokenPipeError when nobody reads any more."""
        while data:
            if not select.select([], [self._descriptor], [], 0)[1]:
                await self._writable()
            # So much a pipe takes without waiting whenever it takes anything.
            data = data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]

    async def _writable(self) -> None:
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._descriptor)
