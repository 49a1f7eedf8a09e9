"""Ray as control plane: place, start, watch, restart and stop the processes of a run.

Invariants: nothing of the data plane goes through Ray. A rollout actor or executor shard that fails is started again,
at most `cluster.restarts` times, and so is an intake whose process dies, if its socket is where the others look for it
(ipc). An intake that fails with an error and trainer ranks end the run with it, and `--resume` continues it.
However a run ends, `stop` leaves no process of it: parts that were told to end have had `cluster.grace` seconds, then
all are killed, and a Ray of our own with them.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from azr.core_placement import CorePlacement, keep_to
from azr.footprint import requested_cpus
from azr.gpu_placement import planned
from azr.part import CPUS, Part, role_of
from azr.process import Process
from azr.processes import ActorProcess, IntakeProcess, ShardProcess, TrainerProcess
from azr.reporting import ShardReports, awaitable
from azr.reservation import Reservation
from azr.wiring import Endpoint, Network
from common.config import Config
from common.errors import AzrError, PartFailed

log = logging.getLogger(__name__)

OBJECT_STORE = 100 << 20  # bytes; control messages only
NETWORK = "if its log tells of NCCL or gloo: NCCL_SOCKET_IFNAME and GLOO_SOCKET_IFNAME, on every machine's `ray start`"
KEPT = ("executor", "actor")  # costly to start, and the same for every run


@dataclass
class Cluster:
    """The parts of one run, or of several one after the other (`change`).

    `resume`: (step, folder) of the checkpoint to continue from; (0, None): the base model.
    """

    config: Config
    network: Network
    folder: Path
    resume: tuple[int, Path | None] | None = None
    started_ray: Callable[[], None] = lambda: None  # called when Ray's own processes are up
    placement: CorePlacement = field(init=False)
    parts: dict[str, Part] = field(default_factory=dict)
    shards: list[Endpoint] = field(default_factory=list)
    intake: Endpoint | None = None
    reports: ShardReports = field(default_factory=ShardReports)
    gpus: Reservation = field(default_factory=Reservation)
    usable: Collection[int] = field(default_factory=lambda: os.sched_getaffinity(0))  # cores of the whole run
    _back: asyncio.Event = field(default_factory=asyncio.Event)  # set when the intake that died is there again

    def __post_init__(self) -> None:
        self.placement = CorePlacement.of(self.config, self.usable)

    # -- start ---------------------------------------------------------------------------------------------------

    async def start(self, progress: Callable[[str], None]) -> None:
        """Everything up to running episodes. Raises PartFailed naming the part that did not come up."""
        keep_to(self.placement.ray)  # Ray's processes inherit it
        await asyncio.to_thread(self._start_ray, progress)
        self.started_ray()
        await self.gpus.make(planned(self.config), self.config.cluster.placement_timeout)
        progress("starting intake, executor, learner and engines")
        await self._begin()

    def fits(self, config: Config) -> bool:
        """Whether a run of `config` can have the engines and sandboxes that are there."""
        kept = [
            (c.model, c.engine, c.executor, c.cluster, c.learner.trainers, c.carrier) for c in (self.config, config)
        ]
        return kept[0] == kept[1]

    async def change(self, config: Config, network: Network, folder: Path, progress: Callable[[str], None]) -> None:
        """After a run that ended well begin another, which `fits`, from the base model.

        Engines and sandboxes are kept, and the first push of the new learner replaces the weights. Intake and learner
        are processes of their own for each run, and so is an actor that has not ended with the last one.
        """
        progress("starting intake and learner; engines and sandboxes are there")
        keep_to(self.placement.ray)
        for part in list(self.parts.values()):
            if part.name.startswith("executor") or (part.name.startswith("actor") and part.idle):
                part.restarts, part.running = 0, None
                continue
            if part.running is not None:
                part.running.cancel()
            self._kill(self.parts.pop(part.name))
        self.reports = ShardReports()
        self.config, self.network, self.folder, self.resume = config, network, folder, None
        for part in self.parts.values():
            await self._within(part, part.handle.assign.remote(network, folder, Path(self._log(part))))
        await self._begin()

    async def _begin(self) -> None:
        config, step = self.config, self.resume[0] if self.resume else 0
        intake = self._create("intake", IntakeProcess)
        shards = [self._kept(f"executor-{i}", ShardProcess) for i in range(config.executor.shards)]
        trainers = range(config.learner.trainers)
        ranks = [self._create(f"trainer-{i}", TrainerProcess) for i in trainers]
        actors = [self._kept(f"actor-{i}", ActorProcess) for i in range(config.engine.actors)]
        for part in self.parts.values():
            await self._placed(part)
        await self._introduce(*actors, *ranks)
        self.intake = await self._within(intake, intake.handle.start.remote(step if self.resume else None))
        self.shards = [await self._within(part, part.handle.start.remote()) for part in shards]
        master = await self._within(ranks[0], ranks[0].handle.rendezvous.remote()) if ranks else None
        checkpoint = self.resume[1] if self.resume else None
        starting = [self._within(p, p.handle.start.remote(i, master, checkpoint)) for i, p in enumerate(ranks)]
        starting += [self._within(p, p.handle.start.remote(i)) for i, p in enumerate(actors)]
        await asyncio.gather(*starting)
        for part in (intake, *shards):
            part.running = self._run(part, part.handle.run.remote())
        for part in ranks:
            part.running = self._run(part, part.handle.run.remote(self.intake, step))
        for part in actors[: 1 if config.engine.join_after else None]:
            part.running = self._run(part, part.handle.run.remote(self.intake, self.shards))

    def _start_ray(self, progress: Callable[[str], None]) -> None:
        progress("starting Ray")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        os.environ.setdefault("RAY_worker_niceness", "0")  # at Ray's 15 the analysis, at 19, is no longer behind us
        address = self.config.cluster.address
        own: dict[str, Any] = {"num_cpus": self.config.cluster.cpus, "object_store_memory": OBJECT_STORE}
        try:
            ray.init(
                address=address or "local",
                include_dashboard=False if not address else None,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **({} if address else own),
            )
        except (RayError, RuntimeError, ConnectionError, TimeoutError) as error:
            raise PartFailed(
                "ray", f"did not start: {error}", hint="see `ray status`; is another Ray in the way?"
            ) from error

    def _create(self, name: str, cls: type[Process]) -> Part:
        old = self.parts.get(name)
        part = Part(name, self._spawn(name, cls), restarts=old.restarts + 1 if old else 0)
        self.parts[name] = part
        return part

    def _spawn(self, name: str, cls: type[Process]) -> Any:
        """The handle of a new process."""
        role = role_of(name)
        threads = 64 if role != "trainer" else 4
        options = {"num_cpus": CPUS[role], "max_restarts": 0, "max_concurrency": threads, **self.gpus.options(name)}
        remote = ray.remote(**options)(cls)
        log_file = self.folder / "logs" / f"{name}.log"
        return remote.remote(name, self.network, self.folder, self.placement.role(role), log_file)

    def _kill(self, part: Part) -> None:
        ray.kill(part.handle)

    def _kept(self, name: str, cls: type[Process]) -> Part:
        """The part of the run before, if there was one."""
        return self.parts.get(name) or self._create(name, cls)

    async def _placed(self, part: Part) -> None:
        """PartFailed if Ray finds no room for `part` within cluster.placement_timeout."""
        reference = part.handle.ready.remote()
        waited = 0.0
        while True:
            limit = self.config.cluster.placement_timeout
            done, _ = await asyncio.wait([asyncio.ensure_future(reference)], timeout=limit)
            if done:
                await self._within(part, reference)
                return
            waited += limit
            asked, free = CPUS[part.role], ray.available_resources().get("CPU", 0.0)
            if free < asked and (self.config.cluster.address or requested_cpus(self.config) > self.config.cluster.cpus):
                raise PartFailed(
                    part.name,
                    f"not placed after {waited:.0f} s: it asks for {asked} CPU, the cluster has {free:.2f} of "
                    f"{ray.cluster_resources().get('CPU', 0.0):.0f} free",
                    hint="fewer actors, ranks or shards, or a larger cluster.cpus",
                )
            if waited >= self.config.cluster.start_timeout:
                raise PartFailed(part.name, f"its process did not answer for {waited:.0f} s", log=self._log(part))

    async def _within(self, part: Part, call: Awaitable[Any]) -> Any:
        """The result of a start-up call; PartFailed if it fails or takes longer than cluster.start_timeout."""
        limit = self.config.cluster.start_timeout
        try:
            return await asyncio.wait_for(awaitable(call), limit)
        except TimeoutError:
            raise PartFailed(
                part.name,
                f"did not start within {limit:.0f} s",
                log=self._log(part),
                hint=self._network_hint(part) or "cluster.start_timeout",
            ) from None
        except RayError as error:
            raise self._failure(part, error) from None

    # -- watch ---------------------------------------------------------------------------------------------------

    def _run(self, part: Part, call: Awaitable[Any]) -> asyncio.Task[Any]:
        return asyncio.create_task(awaitable(call), name=part.name)

    async def supervise(self, progress: Callable[[str], None]) -> None:
        """Until the run is over. Starts late actors, restarts failed ones, raises the failure of anything else."""
        late = asyncio.create_task(self._late_actors(progress))
        try:
            while not self._intake_runs.done() or self._intake_runs.exception() is not None:
                if late.done():
                    late.result()
                watched = {p.running: p for p in self.parts.values() if p.running is not None}
                done, _ = await asyncio.wait(
                    {*watched, *([late] if not late.done() else [])}, return_when=asyncio.FIRST_COMPLETED
                )
                ended = [watched[task] for task in done - {late}]
                for part in sorted(ended, key=lambda part: part.name == "intake"):  # it is replaced beside live ones
                    await self._ended(part, progress)
        finally:
            late.cancel()
        await self._settle()

    async def _ended(self, part: Part, progress: Callable[[str], None]) -> None:
        assert part.running is not None
        running, part.running = part.running, None
        if part.name == "intake":
            part.running = running
        try:
            running.result()
        except RayError as error:
            failure = self._failure(part, error)
            if part.restarts >= self.config.cluster.restarts or not self._replaceable(part, error):
                raise failure from None
            progress(f"{part.name} failed and is started again ({failure.what})")
            log.warning("%s", failure)
            await self._restart(part)

    @property
    def _intake_runs(self) -> asyncio.Task[Any]:
        running = self.parts["intake"].running
        assert running is not None
        return running

    def _replaceable(self, part: Part, error: RayError) -> bool:
        """An intake is while all others go on; an error of its own it would meet again."""
        if part.name != "intake":
            return part.name.startswith(("actor", "executor"))
        others = [p.running for p in self.parts.values() if p is not part]
        on = all(running is not None and not running.done() for running in others)
        trains = self.config.learner.trainers > 0
        return on and trains and isinstance(error, RayActorError) and self.network.folder is not None

    async def _restart(self, part: Part) -> None:
        self._kill(part)
        role, _, index = part.name.partition("-")
        if role == "intake":
            await self._restart_intake()
        elif role == "executor":
            await self._restart_shard(part.name, int(index))
        else:
            await self._restart_actor(part.name, int(index))

    async def _restart_intake(self) -> None:
        """The others find it where it was, and say again what was not answered."""
        part = self._create("intake", IntakeProcess)
        await self._placed(part)
        self.intake = await self._within(part, part.handle.start.remote(None, part.restarts))
        part.running = self._run(part, part.handle.run.remote())
        self._back.set()
        self._back = asyncio.Event()

    async def _restart_shard(self, name: str, index: int) -> None:
        part = self._create(name, ShardProcess)
        await self._placed(part)
        actors = [p for n, p in self.parts.items() if n.startswith("actor")]
        await part.handle.allow.remote([p.key for p in actors])
        known, self.shards[index] = self.shards[index], await self._within(part, part.handle.start.remote())
        part.running = self._run(part, part.handle.run.remote())
        for actor in actors:
            try:
                await actor.handle.replace_shard.remote(index, self.shards[index])
            except RayError as error:
                log.warning("%s did not take the new %s: %s", actor.name, name, self._failure(actor, error).what)
                if self.shards[index] != known:
                    self._kill(actor)  # dead, or waiting at the old address; started again it gets the new one

    async def _restart_actor(self, name: str, index: int) -> None:
        part = self._create(name, ActorProcess)
        await self._placed(part)
        await self._introduce(part)
        await self._within(part, part.handle.start.remote(index))
        part.running = self._run(part, part.handle.run.remote(self.intake, self.shards))

    async def _introduce(self, *parts: Part) -> None:
        """Tell the servers the keys of `parts`."""
        for part in parts:
            part.key = await self._within(part, part.handle.public_key.remote())
        for name, server in self.parts.items():
            if name == "intake" or name.startswith("executor"):
                with suppress(RayError):  # one that is dead is told all keys when it is started again
                    await server.handle.allow.remote([part.key for part in parts])

    async def _late_actors(self, progress: Callable[[str], None]) -> None:
        """Actors beyond the first join once version engine.join_after is in service."""
        waiting = [p for n, p in self.parts.items() if n.startswith("actor") and p.running is None]
        if waiting:
            intake = self.parts["intake"]
            try:
                await intake.handle.reached.remote(self.config.engine.join_after)
            except RayError as error:
                raise self._failure(intake, error) from None
        for part in waiting:
            progress(f"{part.name} joins")
            part.running = self._run(part, part.handle.run.remote(self.intake, self.shards))

    async def status(self) -> dict[str, Any]:
        """Figures of the intake; if it is being started again, once it is there."""
        back, reports = self._back, await self.reports.collect(self.parts)
        try:
            found: dict[str, Any] = await self.parts["intake"].handle.status.remote(reports)
        except RayError:
            await back.wait()
            return await self.status()
        return found

    # -- stop ----------------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """The intake is done: let the others end by themselves."""
        ending = ("trainer", "actor")
        others = {p.running: p for n, p in self.parts.items() if p.running is not None and n.startswith(ending)}
        if others:
            await asyncio.wait(others, timeout=self.config.cluster.grace)
        for task, part in others.items():
            if task.done():
                await self._reraise(part, task)

    async def _reraise(self, part: Part, task: asyncio.Task[Any]) -> None:
        try:
            await task
        except RayError as error:
            raise self._failure(part, error) from None

    async def summary(self) -> dict[str, Any]:
        """Close the intake and return the summary of the run."""
        reports = await self.reports.collect(self.parts)
        found: dict[str, Any] = await asyncio.wait_for(
            awaitable(self.parts["intake"].handle.close.remote(reports)), self.config.cluster.grace
        )
        return found

    async def stop(self) -> None:
        """End every process of the run, whatever state it is in."""
        closing = [awaitable(p.handle.close.remote()) for n, p in self.parts.items() if n.startswith(KEPT)]
        if closing and ray.is_initialized():
            await asyncio.wait([asyncio.ensure_future(c) for c in closing], timeout=3.0)
        for part in self.parts.values():
            if part.running is not None:
                part.running.cancel()
            self._kill(part)
        if ray.is_initialized():
            self.gpus.release()
        await asyncio.to_thread(ray.shutdown)

    def _failure(self, part: Part, error: RayError) -> PartFailed:
        cause = getattr(error, "cause", None)
        if isinstance(cause, PartFailed):
            return cause
        if isinstance(error, RayTaskError) and isinstance(cause, AzrError):
            return PartFailed(part.name, str(cause), log=self._log(part))
        what = "its process died" if isinstance(error, RayActorError) else str(error).splitlines()[-1]
        return PartFailed(part.name, what, log=self._log(part), hint=self._network_hint(part))

    def _network_hint(self, part: Part) -> str:
        """Ranks on several machines choose a network interface each, and may choose ones that do not meet."""
        return NETWORK if part.role == "trainer" and self.config.cluster.address else ""

    def _log(self, part: Part) -> str:
        return str(self.folder / "logs" / f"{part.name}.log")
