"""An intake with everybody who talks to it, all in one event loop: handlers are called directly, nothing is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common import messages as m
from common.config import AlgorithmConfig, Config, EvalConfig, RunConfig
from common.learner import LearnerConfig
from common.staleness import StalenessConfig
from common.transport import Handler, Peer
from common.types import TASK_TYPES, Group, Lease, Share, Task
from learner.evaluation import Question
from learner.intake import Intake
from tests.fakes.clock import FakeClock
from tests.fakes.groups import a_task, fulfil

LOGPROBS = (np.array([-1.0], dtype=np.float32),)
SEEDS = [a_task("seed", task_type) for task_type in TASK_TYPES]


def small(
    *, steps: int = 3, eta: int = 1, save_every: int = 0, incarnation: int = 0, ranks: int = 1, minibatches: int = 1
) -> Config:
    """One group of each kind in a batch, two answers in each group."""
    return Config(
        run=RunConfig(incarnation=incarnation),
        algorithm=AlgorithmConfig(proposals=1, solves=1, samples=2, solve_samples=2),
        staleness=StalenessConfig(eta=eta, lease_timeout=10.0),
        learner=LearnerConfig(steps=steps, save_every=save_every, ranks=ranks, minibatches=minibatches),
        eval=EvalConfig(),
    )


class Stage:
    """`crash` ends it as kill -9 would: nothing is closed or flushed, except that files let go of their handles."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        held_out: Sequence[Task] = (),
        analysis: Sequence[str] = (),
        kind: type[Intake] = Intake,
    ) -> None:
        self.config = config
        self.clock = FakeClock()
        self.notices: list[tuple[int, object]] = []
        asked = [Question(task) for task in held_out]
        self.intake = kind(config, folder, SEEDS, asked, self.clock, self.notify, analysis=analysis)
        self.front: Handler = self.intake  # what peers talk to
        self.published: list[int] = []
        self._tasks: list[asyncio.Task[Any]] = []
        self._over = False

    async def notify(self, peer: Peer, message: object) -> None:
        """Engines do at once what they are told."""
        self.notices.append((peer.index, message))
        match message:
            case m.Stage(epoch, version):
                await self.front.handle(peer, m.Staged(epoch, version))
            case m.Commit(version):
                await self.front.handle(peer, m.Committed(version, LOGPROBS, pause=0.05, checksum=f"sum {version}"))

    # -- life ----------------------------------------------------------------------------------------------------

    async def begin(self, *actors: int, publishing: bool = True) -> None:
        """Run the intake; with the given actors and, unless told otherwise, a publisher."""
        self.running = self.spawn(self.intake.run())
        if publishing:
            self.spawn(self.publish())
        for index in actors:
            self.join(index)
        await self.settle()

    async def crash(self) -> None:
        if self._over:
            return
        await self._stop()
        self.intake.journal.close()
        self.intake.leases.close()
        self.intake.book.close()
        self.intake.log.close()

    async def close(self) -> dict[str, Any]:
        await self._stop()
        return self.intake.close()

    async def _stop(self) -> None:
        self._over = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def join(self, index: int) -> None:
        self.front.joined(Peer("actor", index), m.Hello(0, "", "actor", index, self.config.run.incarnation, ""))

    def leave(self, index: int) -> None:
        self.front.left(Peer("actor", index), "died")

    async def publish(self) -> None:
        peer = Peer("trainer", 0)
        while True:
            push = await self.front.handle(peer, m.WantPush())
            assert isinstance(push, m.Push)
            if push.stop:
                return
            self.published.append(push.version)
            offer = m.Offer(push.version, push.epoch, "here", 1, (), "", (np.array([1, 2], np.int32),), LOGPROBS)
            await self.front.handle(peer, offer)
            await self.front.handle(peer, m.Published(push.version, push.epoch))

    async def act(self, index: int) -> None:
        """Answer every lease at once, until there are no more."""
        peer = Peer("actor", index)
        while True:
            reply = await self.front.handle(peer, m.WantLeases(99))
            assert isinstance(reply, m.Leases)
            if not reply.leases:
                return
            for lease in reply.leases:
                await self.front.handle(peer, m.Deliver(fulfil(lease, incarnation=self.config.run.incarnation)))

    async def settle(self) -> None:
        for _ in range(5):
            await self.clock.advance(0.0)

    def spawn(self, work: Any) -> asyncio.Task[Any]:
        self._tasks.append(asyncio.ensure_future(work))
        return self._tasks[-1]

    # -- requests ------------------------------------------------------------------------------------------------

    async def ask(self, role: str, index: int, message: object) -> Any:
        """The reply, which must be there without anything else happening."""
        task = await self.poll(role, index, message)
        assert task.done(), f"{role} {index} waits for an answer to {message}"
        return task.result()

    async def poll(self, role: str, index: int, message: object) -> asyncio.Task[Any]:
        task = self.spawn(self.front.handle(Peer(role, index), message))
        await self.settle()
        return task

    async def lease(self, actor: int = 0, capacity: int = 99) -> list[Lease]:
        return list((await self.ask("actor", actor, m.WantLeases(capacity))).leases)

    async def deliver(self, group: Group, actor: int = 0) -> None:
        assert await self.ask("actor", actor, m.Deliver(group)) == m.Ack()

    async def fulfil(self, leases: Sequence[Lease], actor: int = 0) -> None:
        for lease in leases:
            await self.deliver(fulfil(lease, incarnation=self.config.run.incarnation), actor)

    async def share(self, step: int, rank: int = 0) -> m.ShareReply:
        reply = await self.ask("trainer", rank, m.WantShare(rank, step))
        assert isinstance(reply, m.ShareReply)
        return reply

    async def train(self, step: int, figures: Mapping[str, float] | None = None) -> Share:
        """One rank trains a step with these `figures`, and saves if it is told to."""
        reply = await self.share(step)
        assert reply.share is not None
        await self.ask("trainer", 0, m.StepDone(step, dict(figures or {"loss": 0.5}), 0.1))
        if reply.save:
            await self.save(step + 1)
        return reply.share

    async def save(self, step: int) -> None:
        await self.ask("trainer", 0, m.CheckpointDone(step, f"checkpoints/step-{step:06d}"))
