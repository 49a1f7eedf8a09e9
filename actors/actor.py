"""A rollout actor: many episodes at once on one engine, leases in, groups out, weights in flight.

Invariants: at most `engine.episodes` episodes are open (0: as many as actors/window.py finds right), and no leases are
asked for while the executor has no room for more jobs; every group is sent until the intake has acknowledged it; a
stage runs beside decoding and a commit follows only when the intake says so. A cancelled episode delivers nothing. If
the engine dies, `run` raises PartFailed; the intake grants the open leases again elsewhere.

Not guaranteed: that the executor still has the room when leases that were asked for come.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from actors.engine import Engine
from actors.environment import Environment
from actors.episode import Codec, Parts, run_episode
from actors.meter import Meter
from actors.window import Window
from common import messages as m
from common.clock import Clock
from common.config import Config
from common.cpu_time import CpuTime
from common.errors import PartFailed, WeightTransferFailed
from common.gpu_load import Gpus, NoGpus
from common.jobs import Executor
from common.ledger import Ledger
from common.types import Lease, Task

log = logging.getLogger(__name__)

REPORT_INTERVAL = 1.0  # seconds


class Intake(Protocol):
    """The actor's line to the intake."""

    async def request(self, message: object) -> object: ...


class Pool(Executor, Protocol):
    """An executor that knows how much it can take."""

    @property
    def room(self) -> int:
        """Jobs that could begin now."""
        ...


class RolloutActor:
    """`dial` makes the line to the intake, given what to call with its notices."""

    def __init__(
        self,
        index: int,
        config: Config,
        engine: Engine,
        executor: Pool,
        environment: Environment,
        codec: Codec,
        dial: Callable[[Callable[[object], None]], Intake],
        ledger: Ledger,
        clock: Clock,
        gpus: Gpus | None = None,
    ) -> None:
        self._gpus = gpus or NoGpus()
        self._name, self._config, self._engine, self._executor = f"actor-{index}", config, engine, executor
        self._intake = dial(self.notice)
        self._ledger, self._clock, self._cpu = ledger, clock, CpuTime()
        self._room = asyncio.Event()  # set when there may be more of it
        self._meter = Meter(engine, executor, ledger, self._ended, self._note)
        slots, credits = config.engine.max_num_seqs, config.executor.credits * config.executor.shards
        self._window = Window(slots, slots + credits, clock)
        self._parts = Parts(self._meter, self._meter, environment, codec, self._novelty, config)
        self._episodes: dict[int, asyncio.Task[None]] = {}
        self._attempts: dict[int, int] = {}  # newest one granted, of each open lease
        self._background: set[asyncio.Task[None]] = set()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> None:
        """Until the intake says stop. Raises whatever ended the actor otherwise."""
        for loop in (self._take_leases(), self._keep_reporting(), self._renew(), self._watch_engine()):
            self._spawn(loop)
        try:
            await self._over
            await self._report()
        finally:
            tasks = [*self._episodes.values(), *self._background]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def notice(self, message: object) -> None:
        match message:
            case m.Stage():
                self._spawn(self._stage(message))
            case m.Commit():
                self._spawn(self._commit(message))
            case m.Cancel(leases):
                for lease in leases:
                    if lease in self._episodes:
                        self._episodes[lease].cancel()
            case m.Stop(reason):
                self._end(PartFailed(self._name, reason) if reason.startswith("error") else None)

    # -- episodes ------------------------------------------------------------------------------------------------

    async def _take_leases(self) -> None:
        while True:
            room = self._capacity()
            if room <= 0:
                self._room.clear()
                await self._room.wait()
                continue
            reply = await self._intake.request(m.WantLeases(room))
            assert isinstance(reply, m.Leases)
            if not reply.leases:
                return
            for lease in reply.leases:
                self._attempts[lease.id] = lease.attempt
                if lease.id in self._episodes:
                    continue  # granted again while its episode goes on, which then counts as the newer attempt
                task = asyncio.create_task(self._episode(lease))
                self._episodes[lease.id] = task
                task.add_done_callback(functools.partial(self._episode_over, lease.id))

    def _capacity(self) -> int:
        """How many more episodes engine and executor can take.

        At least one if none is open, whatever the executor says: nothing would end and make room again.
        """
        allowed = self._config.engine.episodes or self._window.size
        room = min(allowed - len(self._episodes), self._executor.room)
        return room if self._episodes else max(room, 1)

    def _note(self) -> None:
        self._window.note(self._meter.samples, self._executor.room, len(self._episodes))

    def _ended(self) -> None:
        """A request, a job, a pause or an episode: engine or executor may take more."""
        self._note()
        self._room.set()

    async def _episode(self, lease: Lease) -> None:
        with self._meter.during("episode"):
            group = await run_episode(lease, self._parts)
            group = dataclasses.replace(group, attempt=self._attempts[lease.id])
            await self._intake.request(m.Deliver(group))

    def _episode_over(self, lease: int, task: asyncio.Task[None]) -> None:
        del self._episodes[lease], self._attempts[lease]
        self._room.set()
        self._finished(task)

    async def _novelty(self, task: Task) -> str:
        reply = await self._intake.request(m.AskNovelty(task.type, task.key, task.program_key))
        assert isinstance(reply, m.Novelty)
        return reply.status

    # -- weights -------------------------------------------------------------------------------------------------

    async def _stage(self, stage: m.Stage) -> None:
        error = ""
        try:
            times = await self._engine.stage(stage)
            self._meter.pushed("stage", stage.version, times.seconds, times.tokens)
        except WeightTransferFailed as failure:
            log.warning("%s: %s", self._name, failure)
            error = str(failure)
        await self._intake.request(m.Staged(stage.epoch, stage.version, error))

    async def _commit(self, commit: m.Commit) -> None:
        begin = self._ledger.now()
        try:
            with self._meter.during("pause"):
                times = await self._engine.commit(commit.version)
        except WeightTransferFailed as failure:
            log.warning("%s: %s", self._name, failure)
            await self._intake.request(m.Committed(commit.version, error=str(failure)))
            return
        self._meter.pushed("pause", commit.version, times.pause)
        self._meter.pushed("load", commit.version, times.load)
        probe = await self._engine.score(commit.probe)
        checksum = await self._engine.checksum() if self._config.engine.checksums else ""
        self._meter.pushed("commit", commit.version, self._ledger.now() - begin)
        await self._intake.request(m.Committed(commit.version, probe, times.pause, times.load, checksum))

    # -- life ----------------------------------------------------------------------------------------------------

    async def _watch_engine(self) -> None:
        raise await self._engine.failed()

    async def _renew(self) -> None:
        while True:
            await self._clock.sleep(self._config.staleness.lease_timeout / 4)
            await self._intake.request(m.Renew(tuple(self._episodes)))

    async def _keep_reporting(self) -> None:
        while True:
            await self._clock.sleep(REPORT_INTERVAL)
            await self._report()

    async def _report(self) -> None:
        totals, spans = self._ledger.drain()
        produced, pushes = self._meter.drain_produced(), self._meter.drain_pushes()
        gpus, cpu = self._gpus.sample(self._ledger.now()), self._cpu.read()
        state, costs = self._ledger.state, self._meter.costs.drain()
        await self._intake.request(m.Report(self._name, totals, spans, state, produced, gpus, pushes, cpu, costs))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run in the background; its failure ends the actor."""
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._end(task.exception())

    def _end(self, error: BaseException | None) -> None:
        if not self._over.done():
            if error is None:
                self._over.set_result(None)
            else:
                self._over.set_exception(error)
