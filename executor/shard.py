"""One shard of the executor pool: a checker, a pair of fork servers, a memory of results.

Everything is made of one question, "what does this program do with these inputs", asked of the pair at most once at a
time per (program, input) and remembered by content. Verdicts compare keys that the checker computed; nothing that a
program, an input or an answer says is parsed, evaluated or compared in this process.

Failures of time and memory depend on the load and are never remembered. A failure of the shard itself is the status
`infra`. Not guaranteed: that a program found deterministic is so for ever; two hash seeds are a sample.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from common.config import ExecutorConfig
from common.errors import AzrError, SandboxUnavailable
from common.jobs import Validate, Validation, Verdict, Verdicts, Verify
from common.types import Status, Task, TaskType
from executor.cache import Cache
from executor.pair import Outcome, Pair, zygote
from executor.reader import Read, Reader
from executor.values import digest

_LASTING = frozenset(
    (
        Status.OK,
        Status.ERROR,
        Status.INPUT,
        Status.EXIT,
        Status.UNSERIALISABLE,
        Status.TOO_BIG,
        Status.NONDETERMINISTIC,
    )
)
_MAX_REMEMBERED = 4096  # characters; longer outputs are run again rather than kept

logger = logging.getLogger(__name__)


class Shard:
    """Implements common.jobs.Executor."""

    def __init__(self, config: ExecutorConfig, *, policy: bool = True) -> None:
        """`policy` False: only the sandbox stands between a program and the machine; for proving that it holds."""
        self.reader = Reader(policy=policy, timeout=config.wall_limit, max_value=config.output_limit)
        self.pair = Pair(config, self.reader, zygote(config, 1), zygote(config, 2))
        self._outcomes: Cache[Outcome] = Cache(config.cache)
        self._programs: Cache[Read] = Cache(config.cache)
        self._running: dict[bytes, asyncio.Future[Outcome]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.executions = 0  # (program, input) pairs that were run, not remembered

    async def start(self) -> None:
        """SandboxUnavailable if this machine cannot hold a program, with the reason."""
        self._failure: asyncio.Future[SandboxUnavailable] = asyncio.get_running_loop().create_future()
        try:
            for process in (self.reader.process, self.pair.first, self.pair.second):
                await process.start()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """No process is left; jobs under way end as `infra`."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for future in self._running.values():  # of tasks cancelled before their first step
            future.set_result(Outcome(Status.INFRA, "the shard is closing"))
        self._running.clear()
        for process in (self.reader.process, self.pair.first, self.pair.second):
            await process.close()

    async def validate(self, job: Validate) -> Validation:
        try:
            return await self._validate(job)
        except AzrError as error:
            self._note(error)
            return Validation(Status.INFRA, str(error))

    async def verify(self, job: Verify) -> Verdicts:
        try:
            return Verdicts(tuple(await self._verify(job.task, job.answers)))
        except AzrError as error:
            self._note(error)
            return Verdicts((Verdict(False, Status.INFRA, str(error)),) * len(job.answers))

    async def failed(self) -> SandboxUnavailable:
        """Return when a sandbox that died cannot be had again: from then on every answer is `infra`."""
        return await asyncio.shield(self._failure)

    def _note(self, error: AzrError) -> None:
        logger.warning("infra: %s", error)
        if isinstance(error, SandboxUnavailable) and not self._failure.done():
            self._failure.set_result(error)

    async def _validate(self, job: Validate) -> Validation:
        program = await self._program(job.program)
        if not program.ok:
            return Validation(program.status, program.detail)
        inputs = await self.reader.expressions(job.inputs)
        outcomes = await self._run(program, inputs)
        failed = next((outcome for outcome in outcomes if outcome.status != Status.OK), None)
        if failed is not None:
            return Validation(failed.status, failed.text)
        return Validation(
            Status.OK,
            outputs=tuple([outcome.text for outcome in outcomes]),
            program_key=program.key.hex(),
            input_keys=tuple([read.key.hex() for read in inputs]),
        )

    async def _verify(self, task: Task, answers: Sequence[str]) -> list[Verdict]:
        hidden = task.shown if task.type is TaskType.INDUCTION else 0
        wanted = await self.reader.values([text.encode("utf-8", "surrogatepass") for text in task.outputs[hidden:]])
        if not wanted or not all(read.ok for read in wanted):
            return [Verdict(False, Status.INFRA, "the task has no readable output")] * len(answers)
        keys = [read.key for read in wanted]
        match task.type:
            case TaskType.DEDUCTION:
                reads = await self.reader.values([answer.encode("utf-8", "surrogatepass") for answer in answers])
                return [Verdict(read.ok and read.key == keys[0], read.status, read.detail) for read in reads]
            case TaskType.ABDUCTION:
                program = await self._program(task.program)
                outcomes = await self._run(program, await self.reader.expressions(answers))
                return [_verdict([outcome], keys) for outcome in outcomes]
            case TaskType.INDUCTION:
                inputs = await self.reader.expressions(task.inputs[hidden:])
                programs = [await self._program(answer) for answer in answers]
                results = await asyncio.gather(*[self._run(program, inputs) for program in programs])
                return [_verdict(outcomes, keys) for outcomes in results]

    async def _program(self, text: str) -> Read:
        place = digest(text.encode("utf-8", "surrogatepass"))
        known = self._programs.get(place)
        if known is None:
            known = await self.reader.program(text)
            if known.status != Status.CHECKER_CRASH:
                self._programs.put(place, known)
        return known

    async def _run(self, program: Read, inputs: Sequence[Read]) -> list[Outcome]:
        """An outcome per input, from memory, from a run under way, or from a new one."""
        if not program.ok:
            return [Outcome(program.status, program.detail)] * len(inputs)
        answers: list[Outcome | asyncio.Future[Outcome]] = []
        fresh: dict[bytes, bytes] = {}
        for read in inputs:
            place = digest(digest(program.payload) + read.payload)
            if not read.ok:
                answers.append(Outcome(read.status, read.detail))
            elif (known := self._outcomes.get(place)) is not None:
                answers.append(known)
            else:
                if place not in self._running:
                    self._running[place] = asyncio.get_running_loop().create_future()
                    fresh[place] = read.payload
                answers.append(self._running[place])
        if fresh:
            task = asyncio.create_task(self._execute(program.payload, fresh))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return [a if isinstance(a, Outcome) else await asyncio.shield(a) for a in answers]

    async def _execute(self, code: bytes, inputs: dict[bytes, bytes]) -> None:
        """Run, remember, and tell all who wait; a task of its own, so that no caller's end is another's."""
        self.executions += len(inputs)
        try:
            outcomes = await self.pair.run(code, list(inputs.values()))
        except (AzrError, asyncio.CancelledError) as error:
            logger.warning("execution: %s", error or "cancelled")
            outcomes = [Outcome(Status.INFRA, str(error) or "the shard is closing")] * len(inputs)
        except BaseException as error:  # a defect: whoever waits must see it
            for place in inputs:
                self._running.pop(place).set_exception(error)
            raise
        for place, outcome in zip(inputs, outcomes, strict=True):
            if outcome.status in _LASTING and len(outcome.text) <= _MAX_REMEMBERED:
                self._outcomes.put(place, outcome)
            self._running.pop(place).set_result(outcome)


def _verdict(outcomes: Sequence[Outcome], wanted: Sequence[bytes]) -> Verdict:
    """Of one answer: right if every outcome is ok and has the wanted key."""
    failed = next((outcome for outcome in outcomes if outcome.status != Status.OK), None)
    if failed is not None:
        return Verdict(False, failed.status, failed.text)
    return Verdict([outcome.key for outcome in outcomes] == list(wanted), Status.OK)
