"""One shard of the executor pool: a checker that reads, and two sides that run, each under its own hash seed.

A job goes to the less busy side first. Only what would be accepted (a valid task, a right answer) is put to the other
side as well, and accepted if that one, running the inputs in another order, says the same. Verdicts compare keys that
the checker computed; nothing that a program, an input or an answer says is parsed, evaluated or compared in this
process.

A failure of the shard itself is the status `infra`. Not guaranteed: that a program found deterministic is so for
ever; two hash seeds are a sample.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from common.config import ExecutorConfig
from common.errors import AzrError, SandboxUnavailable
from common.jobs import Validate, Validation, Verdict, Verdicts, Verify
from common.ledger import Ledger
from common.tally import Tally
from common.types import NO_ERROR, Status, Task, TaskType
from executor.busy import CHECK, RUN, Busy
from executor.fork_server import fork_servers
from executor.outcome import Outcome, agreed
from executor.process import Process
from executor.reader import Read, Reader
from executor.side import Side
from executor.store import Scope, Store

_SEEDS = (1, 2)  # for hashes, of the two sides
_NAME = 80  # characters of the name of an exception

logger = logging.getLogger(__name__)


class Shard:
    """Implements common.jobs.Executor."""

    def __init__(
        self, config: ExecutorConfig, *, policy: bool = True, native: bool = True, ledger: Ledger | None = None
    ) -> None:
        """`policy` False: only the sandbox stands between a program and the machine; for proving that it holds.
        `native` False: the fork loop in Python even where there is one in C. `ledger` is told what the shard is at
        (executor/busy.py). ConfigError or PartFailed if there is to
        be a store of results and it cannot be opened."""
        self.reader = Reader(
            policy=policy, timeout=config.wall_limit, max_value=config.output_limit, entries=config.cache
        )
        self._store = Store(Path(config.store)) if config.store else None
        scopes = [Scope.of(config, policy=policy, hash_seed=seed).digest() for seed in _SEEDS]
        self.sides = tuple(
            Side(
                config,
                self.reader,
                *fork_servers(config, seed, native=native),
                backwards=seed != _SEEDS[0],
                scope=scope,
                store=self._store,
            )
            for seed, scope in zip(_SEEDS, scopes, strict=True)
        )
        self._strict = config.strict
        busy = Busy(ledger or Tally())
        for process in self.processes:
            process.asking = partial(busy.during, CHECK if process is self.reader.process else RUN)

    @property
    def processes(self) -> tuple[Process, ...]:
        return self.reader.process, *(process for side in self.sides for process in side.processes)

    @property
    def executions(self) -> int:
        """(program, input) pairs that a side ran, not remembered."""
        return sum(side.executions for side in self.sides)

    async def start(self) -> None:
        """SandboxUnavailable if this machine cannot hold a program, with the reason."""
        self._failure: asyncio.Future[SandboxUnavailable] = asyncio.get_running_loop().create_future()
        try:
            await asyncio.gather(*[process.start() for process in self.processes])
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        """No process is left; jobs under way end as `infra`."""
        for side in self.sides:
            await side.close()
        await self.reader.close()
        if self._store is not None:
            self._store.close()

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
        program, composite, inputs = await asyncio.gather(
            self.reader.program(job.program), self._composite(job), self.reader.expressions(job.inputs)
        )
        refused = next((read for read in (program, *composite, *inputs) if not read.ok), None)
        if refused is not None:
            return Validation(refused.status, refused.detail)
        first, second = sorted(self.sides, key=lambda side: side.load)
        found = _named if job.errors else list
        outcomes = found(await first.run(program, inputs))
        if _failure(outcomes) is None:
            again = found(await second.run(program, inputs))
            outcomes = [agreed(*pair) for pair in zip(outcomes, again, strict=True)]
        failure = _failure(outcomes)
        if failure is not None:
            return Validation(failure.status, failure.text)
        return Validation(
            Status.OK,
            outputs=tuple([outcome.text for outcome in outcomes]),
            program_key=program.key.hex(),
            input_keys=tuple([read.key.hex() for read in inputs]),
        )

    async def _composite(self, job: Validate) -> list[Read]:
        """What the checker says of the composition, if there is one."""
        if job.composition is None:
            return []
        return [await self.reader.composite(job.composition.own, job.composition.components)]

    async def _verify(self, task: Task, answers: Sequence[str]) -> list[Verdict]:
        hidden = task.shown if task.type is TaskType.INDUCTION else 0
        wanted = await self.reader.values([text.encode("utf-8", "surrogatepass") for text in task.outputs[hidden:]])
        if not wanted or not all(read.ok for read in wanted):
            return _unreadable("output", answers)
        match task.type:
            case TaskType.DEDUCTION:
                reads = await self.reader.values([answer.encode("utf-8", "surrogatepass") for answer in answers])
                return [Verdict(self._same(read, wanted[0]), read.status, read.detail) for read in reads]
            case TaskType.ABDUCTION:
                program, inputs = await asyncio.gather(
                    self.reader.program(task.program), self.reader.expressions(answers)
                )
                if not program.ok:
                    return _unreadable("program", answers)
                # Each a job of its own: as inputs of one, an answer could spoil what comes behind it.
                return list(await asyncio.gather(*[self._judge(program, [read], wanted) for read in inputs]))
            case TaskType.INDUCTION:
                inputs = await self.reader.expressions(task.inputs[hidden:])
                if not all(read.ok for read in inputs):
                    return _unreadable("input", answers)
                programs = await asyncio.gather(*[self.reader.program(text) for text in answers])
                return list(await asyncio.gather(*[self._judge(program, inputs, wanted) for program in programs]))
            case TaskType.ERROR:
                return [Verdict(False, Status.INFRA, "answers to an error task are not executed")] * len(answers)

    async def _judge(self, program: Read, inputs: Sequence[Read], wanted: Sequence[Read]) -> Verdict:
        """Does the program map every input to what is wanted of it?"""
        refused = next((read for read in (program, *inputs) if not read.ok), None)
        if refused is not None:
            return Verdict(False, refused.status, refused.detail)
        outcomes: list[Outcome] = []
        for side in sorted(self.sides, key=lambda side: side.load):
            again = await side.run(program, inputs)
            outcomes = [agreed(*pair) for pair in zip(outcomes, again, strict=True)] if outcomes else again
            failure = _failure(outcomes)
            if failure is not None:
                return Verdict(False, failure.status, failure.text)
            if not all(self._same(*pair) for pair in zip(outcomes, wanted, strict=True)):
                return Verdict(False, Status.OK)
        return Verdict(True, Status.OK)

    def _same(self, found: Read | Outcome, wanted: Read) -> bool:
        if found.status != Status.OK:
            return False
        if self._strict:
            text = found.text if isinstance(found, Outcome) else found.payload.decode("utf-8", "surrogatepass")
            return text == wanted.payload.decode("utf-8", "surrogatepass")
        return found.key == wanted.key


def _named(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What each raised, as an outcome like any other; its key is the name, so that both sides must raise the same.
    Values keep theirs: a program that gives now this, now that is as little deterministic where it raises nothing."""
    return [_named_one(outcome) for outcome in outcomes]


def _named_one(outcome: Outcome) -> Outcome:
    if outcome.status == Status.OK:
        return Outcome(Status.OK, NO_ERROR, outcome.key)
    if outcome.status != Status.ERROR:
        return outcome
    name = outcome.text  # a claim of the program, which may call its exceptions what it likes
    if not (name.isascii() and name.isidentifier() and len(name) <= _NAME) or name.lower() == NO_ERROR.lower():
        return Outcome(Status.UNSERIALISABLE, "an exception that cannot be told by its name")
    return Outcome(Status.OK, name, name.encode())


def _failure(outcomes: Sequence[Outcome]) -> Outcome | None:
    """Why a job fails whose inputs stand together; an input not run only if there is nothing else to say."""
    failures = [outcome for outcome in outcomes if outcome.status != Status.OK]
    return min(failures, key=lambda outcome: outcome.status == Status.INFRA, default=None)


def _unreadable(what: str, answers: Sequence[str]) -> list[Verdict]:
    """Not the fault of the answers: all are infra."""
    return [Verdict(False, Status.INFRA, f"the task has no readable {what}")] * len(answers)
