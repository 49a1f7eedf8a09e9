"""The processes of a run, as Ray actors: intake, executor shards, trainer ranks, rollout actors.

Each class wires real parts together and holds no logic of its own; azr/process.py has what they share, and the life of
each. Heavy imports happen in `start`, in the process that needs them.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azr.gpu_share import keep_to_share
from azr.process import Process
from azr.reporting import Reporter
from azr.wiring import CREDITS, Endpoint, free_port, own_address
from common import messages as m
from common.clock import SystemClock
from common.errors import PartFailed
from common.gpu_load import found, nvml
from common.ledger import Ledger
from common.tally import Tally
from common.transport import Client, Peer, Server

if TYPE_CHECKING:
    from actors.engine import Engine
    from common.types import Float32Array
    from executor.shard import Shard
    from learner.rank import Bucket

ANALYSIS_GRACE = 5.0  # seconds for the figures of the last batches


class IntakeProcess(Process):
    async def start(self, resume_step: int | None, life: int = 0) -> Endpoint:
        """`life`: how often the intake of this incarnation has died before."""
        from actors.triplets import PythonTriplets
        from learner.evaluation import held_out_programs, questions
        from learner.intake import Intake
        from learner.intrinsic import Programs, measures
        from learner.rollout_only import RolloutOnly
        from learner.timed import Timed
        from learner.watchdog import Watchdog

        environment = PythonTriplets(self.config.environment)
        trains = self.config.learner.trainers > 0
        asked = questions(Path(self.config.model.path), self.config.eval) if trains else []
        barred = held_out_programs(Path(self.config.model.path))
        seeds = [environment.identity(t) for t in self.config.algorithm.task_types]
        analysis = (sys.executable, "-m", "azr.analyse", str(self.folder)) if trains else ()
        programs: Programs | None = None
        if measures(self.config.intrinsic):
            from learner import program as programs
        kind = Intake if trains else RolloutOnly
        self.intake = kind(
            self.config, self.folder, seeds, asked, SystemClock(), self._notify, barred, analysis, programs
        )
        if life:
            self.intake.rejoin(life)
        elif resume_step is not None:
            self.intake.resume(resume_step)
        bounds = self.config.cluster.watchdog, self.config.cluster.watchdog_end
        self.watchdog = Watchdog(self.intake, SystemClock(), *bounds)
        roles = {"actor", "trainer"}
        bind = self.network.bind_address(self.part)
        self.reporter = Reporter(self.part, self.intake.tally)
        timed = Timed(self.watchdog, self.intake.tally)
        self.server = self.network.server(bind, timed, roles, CREDITS, self.security, self.intake.tally)
        await self.server.start()
        return Endpoint(self.server.address, self.public_key())

    async def _notify(self, peer: Peer, message: object) -> None:
        await self.server.notify(peer, message)

    async def run(self) -> None:
        """Until every batch is trained, pushed and evaluated."""
        serving = asyncio.create_task(self.server.serve_forever())
        working = asyncio.create_task(self.intake.run())
        watching = asyncio.create_task(self.watchdog.run())
        reporting = asyncio.create_task(self.reporter.run(self._log))
        try:
            running = {serving, working, watching, reporting}
            done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except Exception as error:  # noqa: BLE001 - the boundary of a process: passed on by name
            raise self.failure(error) from None
        finally:
            for task in (serving, working, watching, reporting):
                task.cancel()
        await self.stop_actors("the run is over")

    async def stop_actors(self, reason: str) -> None:
        for peer in self.server.peers:
            if peer.role == "actor":
                await self.server.notify(peer, m.Stop(reason))

    async def reached(self, version: int) -> None:
        """Return once `version` is in service."""
        await self.intake.reached(version)

    async def _log(self, *reports: m.Report) -> None:
        for report in reports:
            self.intake.log.report(report)

    async def status(self, shards: Sequence[m.Report] = ()) -> dict[str, Any]:
        """What is watched; `shards` tell of themselves on this way."""
        await self._log(*shards)
        return {**self.intake.status(), "stall": list(self.watchdog.stall)}

    async def close(self, shards: Sequence[m.Report] = ()) -> dict[str, Any]:
        """The summary of the run, also when it was cut short."""
        await self.server.close()
        await self._log(*shards, self.reporter.report())
        await self.intake.analyst.close(ANALYSIS_GRACE if self.intake.finished.is_set() else 0.0)
        return self.intake.close()


class ShardProcess(Process):
    """Keeps its sandboxes, and the results they gave, for the runs that it is assigned to."""

    shard: Shard | None = None
    server: Server | None = None

    async def start(self) -> Endpoint:
        from executor.shard import Shard

        self.clock = SystemClock()
        if self.shard is None:
            self.tally = Tally()
            self.shard = Shard(self.config.executor, ledger=self.tally)
            await self.shard.start()
        self.reporter = Reporter(self.part, self.tally)
        if self.server is not None:
            await self.server.close()
        bind = self.network.bind_address(self.part)
        self.server = self.network.server(bind, self, {"actor"}, self.config.executor.credits, self.security)
        await self.server.start()
        return Endpoint(self.server.address, self.public_key())

    async def handle(self, peer: Peer, message: Any) -> object:
        from executor.service import serve

        assert self.shard is not None
        return await serve(self.shard, message, self.config.executor.deadline, self.clock)

    def joined(self, peer: Peer, hello: m.Hello) -> None:
        pass

    def left(self, peer: Peer, reason: str) -> None:
        pass

    async def run(self) -> None:
        assert self.server is not None and self.shard is not None
        serving = asyncio.create_task(self.server.serve_forever())
        failing = asyncio.create_task(self.shard.failed())
        try:
            await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
            if failing.done():
                raise failing.result()
            serving.result()
        except Exception as error:  # noqa: BLE001 - the boundary of a process: passed on by name
            raise self.failure(error) from None
        finally:
            serving.cancel()
            failing.cancel()

    async def report(self) -> m.Report:
        return self.reporter.report()

    async def close(self) -> None:
        if self.server is not None and self.shard is not None:  # else the start has failed, and told why
            await self.server.close()
            await self.shard.close()


class ActorProcess(Process):
    """Keeps its engine for the runs that it is assigned to."""

    engine: Engine | None = None

    async def start(self, index: int) -> None:
        """Load the engine; takes seconds."""
        from actors import engine

        self.index = index
        self.shards: list[Client] = []
        try:
            if self.engine is not None:
                await self.engine.reset()
                return
            os.environ.update(engine.environment(self.config.engine.threads))
            made = engine.create(self.config.engine, self.config.model)
            await made.start()
            self.engine = made
        except Exception as error:  # noqa: BLE001 - the boundary of a process: passed on by name
            raise self.failure(error) from None

    async def run(self, intake: Endpoint, shards: Sequence[Endpoint]) -> None:
        from actors.actor import RolloutActor
        from actors.codec import Codec
        from actors.triplets import PythonTriplets
        from executor.pool import Pool

        assert self.engine is not None
        wait = self.config.cluster.start_timeout
        lines: list[Client] = []

        def dial(on_notice: Callable[[object], None]) -> Client:
            lines.append(self.network.client(intake, "actor", self.index, self.security, "intake", on_notice))
            return lines[0]

        try:
            self.shards += [await self._connect(number, shard) for number, shard in enumerate(shards)]
            self.pool = Pool(self.shards, self.config.executor, SystemClock())
            actor = RolloutActor(
                self.index,
                self.config,
                self.engine,
                self.pool,
                PythonTriplets(self.config.environment),
                Codec(self.config.model.path),
                dial,
                Ledger("wait-lease"),
                SystemClock(),
                found(nvml()),
            )
            await lines[0].connect(wait)
            await actor.run()
        except Exception as error:  # noqa: BLE001 - the boundary of a process: passed on by name
            await self.close()
            raise self.failure(error) from None
        finally:
            for client in (*self.shards, *lines):
                await client.close()

    async def close(self) -> None:
        engine, self.engine = self.engine, None
        if engine is not None:
            await engine.close()

    async def _connect(self, number: int, shard: Endpoint) -> Client:
        client = self.network.client(shard, "actor", self.index, self.security, f"executor-{number}")
        await client.connect(self.config.cluster.start_timeout)
        return client

    async def replace_shard(self, number: int, shard: Endpoint) -> None:
        """A shard that was started again may have another address and has other keys."""
        old, fresh = self.shards[number], await self._connect(number, shard)
        self.shards[number] = fresh
        self.pool.replace(number, fresh)
        await old.close()


class TrainerProcess(Process):
    """A rank. Its methods block; Ray runs them on threads."""

    def rendezvous(self) -> tuple[str, int]:
        """Where rank 0 will listen for the other ranks."""
        return own_address(), free_port()

    def start(self, rank: int, master: tuple[str, int], checkpoint: Path | None) -> None:
        os.environ["OMP_NUM_THREADS"] = str(self.config.learner.threads)
        from learner.trainer import Trainer

        self.rank = rank
        try:
            if self.config.cluster.placement == "shared":
                keep_to_share(self.config)
            self.trainer = Trainer(
                self.config,
                rank=rank,
                world=self.config.learner.ranks,
                master=master,
                folder=self.folder,
                start=checkpoint,
            )
        except Exception as error:  # noqa: BLE001 - the boundary of a process: passed on by name
            raise self.failure(error) from None

    def run(self, intake: Endpoint, first_step: int) -> int:
        """Train until the intake says the run is over; the number of batches trained."""
        from learner.link import LoopThread

        link = LoopThread(f"{self.part}-link")
        try:
            return self._run(link, intake, first_step)
        except Exception as error:  # noqa: BLE001 - the boundary of a process: passed on by name
            raise self.failure(error) from None
        finally:
            link.close()

    def _run(self, link: Any, intake: Endpoint, first_step: int) -> int:
        from learner.checkpoint import prune
        from learner.publisher import Publisher
        from learner.rank import train

        client = self.network.client(intake, "trainer", self.rank, self.security, "intake")
        link.call(client.connect(self.config.cluster.start_timeout))
        probe = self._probe()
        publisher = Publisher(client, own_address(), self.config.cluster.push_timeout, probe, self._sending())
        ledger = Ledger("start")
        reporter = Reporter(self.part, ledger, found(nvml()))
        link.spawn(reporter.run(client.request))
        pushing = link.spawn(publisher.run()) if self.rank == 0 else None
        if pushing is not None:
            # A dead publisher would leave the ranks waiting for a version that never comes: end their line too.
            pushing.add_done_callback(lambda ended: link.spawn(client.close()) if ended.exception() else None)

        def hold(version: int, weights: Iterable[Bucket], logprobs: list[Float32Array]) -> None:
            publisher.hold(version, self.trainer.tensors, weights, logprobs)

        def save(step: int) -> str:
            folders = self.folder / "checkpoints"
            self.trainer.save(folders / f"step-{step:06d}")
            if self.rank == 0:
                prune(folders, keep=self.config.learner.keep_checkpoints)
            return f"checkpoints/step-{step:06d}"

        def request(message: object) -> object:
            return link.call(client.request(message))

        try:
            steps = train(self.rank, first_step, self.trainer, request, hold, save, probe, ledger)
        except PartFailed:
            if pushing is not None and pushing.done() and not pushing.cancelled():
                pushing.result()  # the cause, if it was the publisher
            raise
        if pushing is not None:
            pushing.result(timeout=self.config.cluster.grace)
        link.call(reporter.tell(client.request))
        link.call(client.close())
        self.trainer.close()
        return steps

    def _sending(self) -> Any:
        from common.device import Cuda
        from learner.publisher import Sending

        carrier, weights = self.config.carrier, self.config.weights
        gpu = None if carrier == "gloo" or self.rank else Cuda(self.trainer.zero.device)
        return Sending(carrier, weights.delta, weights.checksum, gpu)

    def _probe(self) -> list[Any]:
        from actors.codec import Codec
        from actors.triplets import PythonTriplets

        environment = PythonTriplets(self.config.environment)
        codec = Codec(self.config.model.path)
        identities = [environment.identity(t) for t in self.config.algorithm.task_types]
        return [codec.encode(environment.solve_prompt(task)) for task in identities]
