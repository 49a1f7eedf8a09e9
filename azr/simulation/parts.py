"""Who talks to the intake in a simulated run: actors and a trainer that take time and do no work.

They follow the rules of actors/actor.py and learner/rank.py: how many leases an actor asks for, what an episode does
one after the other, when a push is staged and committed. What they deliver is drawn at random from the costs, by the
lease's own seed.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from typing import Any

import numpy as np

from actors.window import Window
from azr.simulation.costs import Costs
from azr.simulation.engine import SimulatedEngine
from azr.simulation.virtual_time import VirtualClock
from common import messages as m
from common.config import Config
from common.ledger import Ledger
from common.transport import Peer
from common.types import Float32Array, Group, Lease, Sample, Span, Task, solve
from learner.intake import Intake

_LONGEST = 1 << 20
_TOKENS = np.zeros(_LONGEST, np.int32)
_LOGPROBS = np.full(_LONGEST, -1.0, np.float32)
PROBE = (np.zeros(1, np.int32),)
PROBED: tuple[Float32Array, ...] = (np.zeros(1, np.float32),)


class Executor:
    """Shards that serve jobs one at a time each, first come, first served."""

    def __init__(self, shards: int, seconds: float) -> None:
        self._free, self._seconds = asyncio.Semaphore(shards), seconds
        self.busy = 0.0  # seconds of all shards together

    async def job(self) -> None:
        async with self._free:
            self.busy += self._seconds
            await asyncio.sleep(self._seconds)


class SimulatedActor:
    """One life of an actor. `live` ends when the intake has no more leases, or is cancelled when the actor dies."""

    def __init__(self, index: int, config: Config, costs: Costs, intake: Intake, executor: Executor) -> None:
        loop = asyncio.get_running_loop()
        self._peer, self._config, self._costs, self._intake = Peer("actor", index), config, costs, intake
        self._executor, self._jobs, self._samples, self._pausing = executor, 0, 0, False
        self.engine = SimulatedEngine(lambda c: costs.decode + costs.decode_each * c, config.engine.max_num_seqs)
        self.ledger = Ledger("wait-lease", now=loop.time)
        slots, credits = config.engine.max_num_seqs, config.executor.credits * config.executor.shards
        self._window = Window(slots, slots + credits, VirtualClock())
        self._thread = asyncio.Lock()
        self._room = asyncio.Event()
        self._episodes: dict[int, asyncio.Task[None]] = {}
        self._attempts: dict[int, int] = {}
        self._background: set[asyncio.Task[None]] = set()

    async def live(self) -> None:
        self._intake.joined(self._peer, m.Hello(0, "", "actor", self._peer.index, 0, ""))
        self.spawn(self._renew())
        try:
            while True:
                room = self._capacity()
                if room <= 0:
                    self._room.clear()
                    await self._room.wait()
                    continue
                reply = await self._intake.handle(self._peer, m.WantLeases(room))
                assert isinstance(reply, m.Leases)
                if not reply.leases:
                    return
                for lease in reply.leases:
                    self._attempts[lease.id] = lease.attempt
                    if lease.id not in self._episodes:
                        self._episodes[lease.id] = self.spawn(self._episode(lease))
        finally:
            for task in self._background:
                task.cancel()

    def notice(self, message: object) -> None:
        match message:
            case m.Stage(epoch, version):
                self.spawn(self._stage(epoch, version))
            case m.Commit(version):
                self.spawn(self._commit(version))
            case m.Cancel(leases):
                for lease in leases:
                    if lease in self._episodes:
                        self._episodes[lease].cancel()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    def _capacity(self) -> int:
        credits = self._config.executor.credits * self._config.executor.shards
        allowed = self._config.engine.episodes or self._window.size
        room = min(allowed - len(self._episodes), credits - self._jobs)
        return room if self._episodes else max(room, 1)

    async def _episode(self, lease: Lease) -> None:
        self._tell()
        try:
            group = await self._play(lease)
            await self._intake.handle(self._peer, m.Deliver(group))
        finally:
            self._note()
            del self._episodes[lease.id], self._attempts[lease.id]
            self._tell()
            self._room.set()

    async def _play(self, lease: Lease) -> Group:
        costs, rng, longest = self._costs, random.Random(lease.seed), self._config.engine.max_tokens
        samples: list[Sample] = []
        proposal: Task | None = None
        rate: float | None = None
        prompt = _TOKENS[: max(1, round(costs.prompt_length))]
        if lease.kind.proposes:
            proposed = costs.responses(lease.kind)
            valid = rng.random() < proposed.success
            (spans,) = await self._generate([proposed.draw(rng, longest)])
            await self._job()
            samples.append(_sample(lease, spans, 1.0 if valid else self._config.algorithm.invalid_reward, valid))
            if valid:
                name = f"{lease.kind.task_type}:{lease.id}"
                proposal = Task(lease.kind.task_type, f"p{lease.id}", ("1",), ("1",), name, program_key=name)
        if proposal is not None or not lease.kind.proposes:
            answer = costs.responses(solve(lease.kind.task_type))
            right = [rng.random() < answer.success for _ in range(lease.samples)]
            answers = await self._generate([answer.draw(rng, longest) for _ in right])
            await self._job()
            samples += [_sample(lease, s, 1.0 if r else -0.5, r, True) for s, r in zip(answers, right, strict=True)]
            rate = float(np.mean(right))
        if costs.group:
            async with self._thread:
                await asyncio.sleep(costs.group)
        references = tuple(task.key for task in lease.references)
        asked = lease.task.key if lease.task else ""
        attempt, incarnation = self._attempts[lease.id], self._config.run.incarnation
        return Group(
            lease.id,
            attempt,
            lease.kind,
            incarnation,
            (prompt,),
            tuple(samples),
            proposal,
            rate,
            references=references,
            asked=asked,
        )

    async def _generate(self, lengths: list[int]) -> list[tuple[Span, ...]]:
        self._samples += len(lengths)
        self._note()
        try:
            if self._costs.prefill:
                await asyncio.sleep(self._costs.prefill)
            return await self.engine.generate(lengths)
        finally:
            self._samples -= len(lengths)
            self._note()
            self._room.set()

    async def _job(self) -> None:
        self._jobs += 1
        self._note()
        try:
            await self._executor.job()
        finally:
            self._jobs -= 1
            self._note()
            self._room.set()

    def _note(self) -> None:
        credits = self._config.executor.credits * self._config.executor.shards
        self._window.note(self._samples, credits - self._jobs, len(self._episodes))
        self._tell()

    def _tell(self) -> None:
        """The state by the order of actors/meter.py."""
        state = "idle" if self._episodes else "wait-lease"
        state = "wait-executor" if self._jobs else state
        state = "generate" if self._samples else state
        self.ledger.enter("weight-pause" if self._pausing else state)

    async def _stage(self, epoch: int, version: int) -> None:
        await asyncio.sleep(self._costs.stage)
        await self._intake.handle(self._peer, m.Staged(epoch, version))

    async def _commit(self, version: int) -> None:
        self._pausing = True
        self._tell()
        self.engine.pause()
        await asyncio.sleep(self._costs.pause)
        self.engine.resume(version)
        self._pausing = False
        self._tell()
        pause = self._costs.pause
        await self._intake.handle(self._peer, m.Committed(version, PROBED, pause, pause))

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._config.staleness.lease_timeout / 4)
            await self._intake.handle(self._peer, m.Renew(tuple(self._episodes)))


class SimulatedTrainer:
    """All ranks and the publisher. `steps` notes (time, sequences, tokens by staleness so far) after each step."""

    def __init__(self, config: Config, costs: Costs, intake: Intake) -> None:
        self._config, self._costs, self._intake = config, costs, intake
        self._loop = asyncio.get_running_loop()
        self.ledger = Ledger("wait-batch", now=self._loop.time)
        self.steps: list[tuple[float, int, dict[int, int]]] = []

    async def train(self) -> None:
        costs, ranks = self._costs, range(self._config.learner.ranks)
        for step in range(self._config.learner.steps):
            wants = [self._intake.handle(Peer("trainer", rank), m.WantShare(rank, step)) for rank in ranks]
            replies = [reply for reply in await asyncio.gather(*wants) if isinstance(reply, m.ShareReply)]
            self.ledger.enter("train")
            tokens = [sum(len(b.tokens) for b in reply.share.micro_batches) for reply in replies if reply.share]
            seconds = costs.step + costs.step_token * max(tokens)
            await asyncio.sleep(seconds)
            await self._intake.handle(Peer("trainer", 0), m.StepDone(step, {}, seconds))
            log = self._intake.log
            self.steps.append((self._loop.time(), log.sequences, dict(log.staleness)))
            if replies[0].save:
                self.ledger.enter("save")
                await asyncio.sleep(costs.save)
                await self._intake.handle(Peer("trainer", 0), m.CheckpointDone(step + 1, f"step-{step + 1}"))
            self.ledger.enter("wait-batch")

    async def publish(self) -> None:
        peer = Peer("trainer", 0)
        while True:
            push = await self._intake.handle(peer, m.WantPush())
            assert isinstance(push, m.Push)
            if push.stop:
                return
            await self._intake.handle(peer, m.Offer(push.version, push.epoch, "", 0, (), "", PROBE, PROBED))
            await asyncio.sleep(self._costs.stage + self._costs.stage_engine * (push.world - 1))
            await self._intake.handle(peer, m.Published(push.version, push.epoch))


def _sample(lease: Lease, spans: tuple[Span, ...], reward: float, right: bool, answer: bool = False) -> Sample:
    length = spans[-1].end
    stream = solve(lease.kind.task_type) if answer else lease.kind
    status = "ok" if right or answer else "error"
    return Sample(stream, 0, _TOKENS[:length], _LOGPROBS[:length], spans, reward, right, status)
