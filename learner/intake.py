"""The intake: the process that every actor and trainer rank talks to.

It grants leases, takes groups in (journal first, then acknowledgement), forms batches, hands each rank its share,
lets weight pushes out, runs evaluations and keeps the book, the lease ledger and the run's log. One asyncio loop, no
torch. The rules live in the parts it is made of; here they are wired.

    actor ── WantLeases ─► Leases        trainer rank ── WantShare ─► ShareReply
          ── Deliver ────► Ack                        ── StepDone ──► Ack
          ◄─ Stage, Commit, Cancel       publisher    ── WantPush ──► Push, then Offer, Published
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from common import messages as m
from common.clock import Clock
from common.config import Config
from common.errors import PartFailed, WireError
from common.transport import Peer
from common.types import STREAMS, Group, Kind, Lease, Share, Task
from learner.admission import Admission, Ended, Limits
from learner.batch import sequences, shares
from learner.evaluation import Evaluation
from learner.journal import Journal
from learner.lease_ledger import LeaseLedger
from learner.leases import LeaseMaker
from learner.run_log import RunLog, batch_metrics, staleness_histogram
from learner.task_book import TaskBook
from learner.weight_sync import PushRecord, WeightSync

log = logging.getLogger(__name__)

EXPIRY_INTERVAL = 1.0  # seconds between looks for silent leases


def quota(config: Config) -> dict[Kind, int]:
    """G_k, groups of each kind in a batch."""
    return {k: config.algorithm.proposals if k.proposes else config.algorithm.solves for k in STREAMS}


class Intake:
    """Handler of the intake's server. `notify` reaches an actor; `folder` is the run folder."""

    def __init__(
        self,
        config: Config,
        folder: Path,
        seeds: Sequence[Task],
        held_out: Sequence[Task],
        clock: Clock,
        notify: Callable[[Peer, object], Awaitable[None]],
    ) -> None:
        self._config, self._folder, self._clock = config, folder, clock
        self._notify = notify
        self.book = TaskBook(folder / "tasks.sqlite", seeds)
        self.leases = LeaseLedger(folder / "tasks.sqlite", config.run.incarnation)
        self._maker = LeaseMaker(config, self.book)
        limits = Limits(
            config.staleness.eta,
            config.max_staleness,
            config.staleness.lease_timeout,
            config.learner.steps,
        )
        self.admission = Admission(quota(config), limits, clock, self._make, self._ended)
        self.weights = WeightSync(
            lambda index, message: notify(Peer("actor", index), message),
            self._version_committed,
            held=lambda: self.evaluation.active,
            tolerance=config.learner.probe_tolerance,
            timeout=config.cluster.start_timeout,
        )
        self.evaluation = Evaluation(held_out, config.eval, config.learner.steps)
        self.log = RunLog(folder)
        self.journal = Journal(folder / "journal", keep=config.logging.keep_journal)
        self.finished = asyncio.Event()
        self._batches: dict[int, list[Group]] = {}  # formed, not yet in the book
        self._shares: dict[int, list[Share]] = {}
        self._pushes: list[PushRecord] = []
        self._changed = asyncio.Condition()
        self._step = 0  # batches trained

    # -- life ----------------------------------------------------------------------------------------------------

    def resume(self, step: int) -> None:
        """Return book, ledger and admission to the checkpoint of `step` batches; journaled batches train again."""
        held = self.journal.read()
        again = {s: groups for s, groups in sorted(held.batches.items()) if s >= step}
        replay = {step + i: again[s] for i, s in enumerate(again) if s == step + i}
        self.leases.rewind(step, [*held.waiting, *(g.lease for groups in again.values() for g in groups)])
        self.book.rewind(step)
        self.admission.resume(step, step + len(replay), self.leases.following())
        for number, groups in replay.items():
            self._take_batch(number, groups)
        for group in held.waiting.values():
            if not self.leases.is_open(group.lease):
                continue
            newest = group.newest_version
            if newest is not None and newest > step:
                self._ended(Ended(group.lease, group.attempt, "lost_weights"))
            else:
                self.admission.restore([group])
        self._step = step

    async def run(self) -> None:
        """Until the last version is in service and evaluated."""
        watch = asyncio.create_task(self._expire())
        pushes = asyncio.create_task(self.weights.run())
        over = asyncio.create_task(self.finished.wait())
        try:
            done, _ = await asyncio.wait({watch, pushes, over}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (watch, pushes, over):
                task.cancel()
            self.weights.stop()
            await self._wake()

    def close(self) -> dict[str, Any]:
        """End what is open, write the summary, close the files. Returns the summary."""
        self.admission.close()
        figures = {
            "version": self.admission.version,
            "leases": self.leases.fates(),
            "tasks": {t.value: n for t, n in self.book.sizes.items()},
            "pauses": [p for record in self._pushes for p in record.pauses],
            "pushes": len(self._pushes),
        }
        summary = self.log.summary(figures, self.evaluation.rounds)
        self.log.close()
        self.journal.close()
        self.leases.close()
        self.book.close()
        return summary

    async def _expire(self) -> None:
        while True:
            await self._clock.sleep(EXPIRY_INTERVAL)
            if self.admission.expire():
                await self._wake()

    # -- transport handler ---------------------------------------------------------------------------------------

    def joined(self, peer: Peer, hello: m.Hello) -> None:
        log.info("%s %d joined", peer.role, peer.index)
        if peer.role == "actor":
            self.weights.engine_joined(peer.index)

    def left(self, peer: Peer, reason: str) -> None:
        log.info("%s %d left: %s", peer.role, peer.index, reason)
        if peer.role == "actor":
            self.weights.engine_left(peer.index)
            self.admission.actor_left(peer.index)

    async def handle(self, peer: Peer, message: object) -> object:
        match message:
            case m.WantLeases(capacity):
                return await self._grant(peer.index, capacity)
            case m.Renew(leases):
                self.admission.renew(peer.index, leases)
                return m.Ack()
            case m.Deliver(group):
                return await self._deliver(group)
            case m.Known(keys):
                return m.KnownKeys(self.book.knows(keys))
            case m.WantShare(rank, step):
                return await self._share(rank, step)
            case m.StepDone():
                return await self._step_done(message)
            case m.CheckpointDone(step, path):
                return self._checkpoint_done(step, path)
            case m.WantPush():
                return await self.weights.want_push()
            case m.Offer():
                return self.weights.offer(message)
            case m.Published():
                return self.weights.published(message)
            case m.Staged():
                return self.weights.staged(peer.index, message)
            case m.Committed():
                return self.weights.committed(peer.index, message)
            case m.Report():
                self.log.report(message)
                return m.Ack()
        raise WireError(f"the intake does not serve {type(message).__name__}")

    # -- actors --------------------------------------------------------------------------------------------------

    async def _grant(self, actor: int, capacity: int) -> m.Leases:
        async with self._changed:
            while True:
                if self.finished.is_set():
                    return m.Leases(())
                leases = self._grant_now(actor, capacity) if self.weights.in_service(actor) else []
                if leases:
                    return m.Leases(tuple(leases))
                await self._changed.wait()

    def _grant_now(self, actor: int, capacity: int) -> list[Lease]:
        leases: list[Lease] = []
        while len(leases) < capacity and (task := self.evaluation.next_task()) is not None:
            lease = self.admission.new_id(Kind.EVAL)
            self.leases.granted(lease, self.admission.version)
            self.evaluation.granted(lease)
            made = self._maker.evaluation(lease, self.admission.version, task, self._config.eval.temperature)
            leases.append(self.admission.grant_evaluation(actor, made))
        return leases + self.admission.grant(actor, capacity - len(leases))

    def _make(self, lease: int, version: int) -> Lease:
        self.leases.granted(lease, version)
        return self._maker.make(lease, version)

    def _ended(self, end: Ended) -> None:
        self.leases.ended(end.lease, end.attempt, end.fate, end.step)

    async def _deliver(self, group: Group) -> m.Ack:
        if group.incarnation != self._config.run.incarnation:
            raise WireError(f"group of incarnation {group.incarnation}: its weights no longer exist")
        if group.kind is Kind.EVAL:
            if self.admission.is_open(group.lease):
                self.evaluation.deliver(group)
            self.admission.deliver(group)
            if self.evaluation.rounds and not self.evaluation.active:
                self._evaluated()
        else:
            if not group.failure and self.admission.is_open(group.lease):
                self.journal.append(group)
            self.admission.deliver(group)
            self._form()
        await self._wake()
        return m.Ack()

    def _form(self) -> None:
        while (batch := self.admission.form()) is not None:
            step = self.admission.batched - 1
            self.journal.append(m.BatchFormed(step, tuple(group.lease for group in batch)))
            self.journal.sync()
            self._take_batch(step, batch)

    def _take_batch(self, step: int, batch: list[Group]) -> None:
        learner = self._config.learner
        rows, _ = sequences(step, batch, self._config.algorithm.stream_weight)
        self._batches[step] = batch
        self._shares[step] = shares(step, rows, learner.ranks, learner.micro_batch_tokens)

    # -- trainer -------------------------------------------------------------------------------------------------

    async def _share(self, rank: int, step: int) -> m.ShareReply:
        """A step may run while the push of the one before is under way, no more."""
        if self.weights.available is None and rank == 0:
            self.weights.step_ready(step)
        last = self._config.learner.steps
        async with self._changed:
            while True:
                if step >= last:
                    if self.finished.is_set():
                        return m.ShareReply(None)
                elif (
                    step in self._shares
                    and (self.weights.version or 0) >= step - 1
                    and self.weights.version is not None
                ):
                    every = self._config.learner.save_every
                    save = step + 1 == last or (every > 0 and (step + 1) % every == 0)
                    return m.ShareReply(self._shares[step][rank], save)
                await self._changed.wait()

    async def _step_done(self, done: m.StepDone) -> m.Ack:
        if done.step < self._step:
            return m.Ack()
        batch = self._batches[done.step]
        rows, silent = sequences(done.step, batch, self._config.algorithm.stream_weight)
        row = {
            "step": done.step,
            "time": self._clock.now(),
            "seconds": done.seconds,
            **batch_metrics(done.step, batch, rows),
            **{f"learner/{k}": v for k, v in done.metrics.items()},
            "silent_streams": len(silent),
            "version": self.admission.version,
            "open": sum(self.admission.open.values()),
            "waiting": sum(self.admission.waiting.values()),
            **{f"book/{t}": n for t, n in self.book.sizes.items()},
            **{f"admission/{k}": n for k, n in self.admission.counts.items()},
        }
        if self._pushes:
            push = self._pushes[-1]
            row["push/stage"] = push.stage
            row["push/pause"] = max(push.pauses, default=0.0)
            row["push/probe_difference"] = push.probe_difference
        self.admission.trained(done.step, batch)
        self.log.step(row, staleness_histogram(done.step, batch))
        del self._shares[done.step]
        self._step = done.step + 1
        self.weights.step_ready(self._step)
        await self._wake()
        return m.Ack()

    def _checkpoint_done(self, step: int, path: str) -> m.Ack:
        held = self.journal.read()
        self.journal.compact(
            [(s, groups) for s, groups in sorted(held.batches.items()) if s >= step],
            self.admission.waiting_groups(),
        )
        target = self._folder / "checkpoints" / "latest.json"
        partial = target.with_suffix(".part")
        partial.write_text(json.dumps({"step": step, "path": path}))
        partial.rename(target)
        return m.Ack()

    # -- versions ------------------------------------------------------------------------------------------------

    def _version_committed(self, record: PushRecord) -> None:
        self._pushes.append(record)
        for step in sorted(s for s in self._batches if s < record.version):
            self.book.add_batch(step + 1, self._batches.pop(step))
        late = self.admission.advance(record.version)
        for actor in {a for a, _ in late if a is not None}:
            leases = tuple(lease for a, lease in late if a == actor)
            asyncio.get_running_loop().create_task(self._cancel(actor, leases))
        if self.evaluation.due(record.version):
            self.evaluation.begin(record.version)
        elif record.version >= self._config.learner.steps and not self.evaluation.active:
            self.finished.set()
        self._form()
        asyncio.get_running_loop().create_task(self._wake())

    async def _cancel(self, actor: int, leases: tuple[int, ...]) -> None:
        await self._notify(Peer("actor", actor), m.Cancel(leases))

    def _evaluated(self) -> None:
        accuracy = self.evaluation.rounds[-1]
        self.log.evaluation(accuracy)
        self.weights.reconsider()
        if accuracy.version >= self._config.learner.steps:
            self.finished.set()

    # -- view ----------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "steps": self._config.learner.steps,
            "version": self.weights.version,
            "batched": self.admission.batched,
            "open": {k.value: n for k, n in self.admission.open.items()},
            "waiting": {k.value: n for k, n in self.admission.waiting.items()},
            "states": self.log.state,
            "shares": self.log.shares(),
            "last": self.log.last,
            "staleness": {str(a): n for a, n in sorted(self.log.staleness.items())},
            "sequences": self.log.sequences,
            "evaluating": self.evaluation.active,
            "evaluation": [
                {"version": r.version, **{t.value: r.of(t) for t in r.asked}} for r in self.evaluation.rounds
            ],
        }

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def latest_checkpoint(folder: Path) -> tuple[int, Path]:
    """(step, folder of the newest durable checkpoint) of a run. PartFailed if it has none."""
    path = folder / "checkpoints" / "latest.json"
    if not path.exists():
        raise PartFailed(
            "resume", f"{folder} has no checkpoint", hint="start a new run with azr train CONFIG"
        )
    found = json.loads(path.read_text())
    return int(found["step"]), folder / found["path"]
