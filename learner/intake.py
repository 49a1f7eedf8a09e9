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
import logging
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

from common import messages as m
from common.clock import Clock
from common.config import Config
from common.errors import AzrError, WireError
from common.tally import Tally
from common.transport import Peer
from common.types import Group, Kind, Lease, Share, Task
from learner.admission import APART, Admission, Ended, Limits, quota
from learner.analyst import Analyst
from learner.auto_eta import AutoEta
from learner.evaluation import Evaluation, Question, Round
from learner.figures import of_book, of_now, of_pushes, step_row
from learner.group_check import require_consistent
from learner.intrinsic import Programs
from learner.journal import Journal
from learner.lease_desk import LeaseDesk
from learner.lease_ledger import LeaseLedger
from learner.leases import LeaseMaker
from learner.preparation import prepared
from learner.recovery import recover
from learner.resume_point import latest_checkpoint, latest_eta, record_checkpoint
from learner.run_log import RunLog, rejections, staleness_histogram
from learner.safety_log import SafetyLog
from learner.seeding import Seeding
from learner.task_book import TaskBook
from learner.timed import BATCH, PUSH
from learner.weight_sync import PushRecord, WeightSync

log = logging.getLogger(__name__)

EXPIRY_INTERVAL = 1.0  # seconds between looks for silent leases


class Intake:
    """Handler of the intake's server.

    `seeds` begin a new book, `notify` reaches an actor, `held_out` are keys of programs that no proposal may use,
    `programs` is what measures them where learner.intrinsic.measures.
    """

    def __init__(
        self,
        config: Config,
        folder: Path,
        seeds: Sequence[Task],
        questions: Sequence[Question],
        clock: Clock,
        notify: Callable[[Peer, object], Awaitable[None]],
        held_out: frozenset[str] = frozenset(),
        analysis: Sequence[str] = (),
        programs: Programs | None = None,
    ) -> None:
        self._config, self._folder, self._clock = config, folder, clock
        self._notify, self._programs = notify, programs
        self.book = TaskBook(folder / "tasks.sqlite", seeds, config, held_out)
        self.seeding = Seeding(config, self.book)
        self.leases = LeaseLedger(folder / "tasks.sqlite", config.run.incarnation)
        self._maker = LeaseMaker(config, self.book)
        self.admission = Admission(quota(config), Limits.of(config), clock, self._make, self._ended)
        self.weights = WeightSync(
            lambda index, message: notify(Peer("actor", index), message),
            self._version_committed,
            clock,
            held=lambda: self.evaluation.active or not self.admission.complete,
            tolerance=config.learner.probe_tolerance,
            timeout=config.cluster.push_timeout,
        )
        self.evaluation = Evaluation(questions, config.eval, config.learner.steps)
        self.desk = LeaseDesk(
            self.admission,
            self.evaluation,
            self.seeding,
            self._maker,
            self.leases,
            self.weights.in_service,
            config.eval.temperature,
        )
        self.log = RunLog(folder)
        self.auto_eta = AutoEta(config.staleness, self.admission, clock, self.log.eta)
        self.analyst = Analyst(analysis, self.log.analysis, self.book.find)
        self.safety = SafetyLog(folder / "safety.jsonl", config.safety.on_flag)
        self.tally = Tally()  # where the time of this process goes
        self.journal = Journal(folder / "journal", keep=config.logging.keep_journal, tally=self.tally)
        self.finished = asyncio.Event()
        self.rates: dict[str, Any] = {}  # for the summary, of a run without a learner
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._batches: dict[int, list[Group]] = {}  # formed, not yet in the book
        self._shares: dict[int, list[Share]] = {}
        self._pushes: list[PushRecord] = []
        self._changed = asyncio.Event()  # set, and replaced by a fresh one, whenever something may go on
        self._notices: set[asyncio.Future[None]] = set()
        self._step = 0  # batches trained
        self._saved = 0  # batches in the newest checkpoint

    # -- life ----------------------------------------------------------------------------------------------------

    def resume(self, step: int) -> None:
        """In a new incarnation, all of which begins at the checkpoint of `step` batches; later ones train again."""
        self.auto_eta.begin(latest_eta(self._folder, self._config.staleness.eta), self.leases.service.eta)
        self.leases.forget()
        self._return(step)
        self._saved = step

    def rejoin(self, life: int) -> None:
        """In the incarnation whose intake died, for the `life`-th time: trainer ranks and engines are where they were,
        and only repeat themselves. The first push is that of the version in service, if there was one."""
        version, eta, evaluated = self.leases.service
        self.auto_eta.begin(latest_eta(self._folder, self._config.staleness.eta) if eta is None else eta)
        self.evaluation.rejoin(evaluated)
        self._return(max(self.leases.trained, version or 0))
        self._saved, _ = latest_checkpoint(self._folder)
        self.weights.rejoin(version, life)

    def _return(self, step: int) -> None:
        self.leases.adapt(self.admission.limits.eta)
        parts = self.leases, self.book, self.admission, self._config, self._programs
        for number, groups in recover(step, self.journal.read(), *parts).items():
            self._take_batch(number, groups)
        for number in range(self.admission.version, step):
            del self._shares[number]
        self._step = step

    async def run(self) -> None:
        """Until the last version is in service, evaluated and saved."""
        if self._step == 0 and not self._batches:
            self.seeding.begin()
        watch: asyncio.Future[Any] = asyncio.create_task(self._expire())
        pushes = asyncio.create_task(self.tally.running(PUSH, self.weights.run()))
        over = asyncio.create_task(self.finished.wait())
        try:
            done, _ = await asyncio.wait({watch, pushes, over, self._failure}, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in (watch, pushes, over):
                task.cancel()
            self.weights.stop()
            self._wake()

    def close(self) -> dict[str, Any]:
        """Write the summary and close the files; returns the summary. Leases of an unfinished run stay open."""
        if self.finished.is_set():
            self.admission.close()
        figures: dict[str, Any] = {
            "version": self.admission.version,
            "leases": self.leases.fates(),
            **of_book(self.book),
            **of_pushes(self._pushes),
            "flags": dict(self.safety.counts),
            "analysis": dict(self.analyst.counts),
            **self.rates,
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
                self._wake()

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
            self._wake()

    async def handle(self, peer: Peer, message: object) -> object:
        match message:
            case m.WantLeases(capacity):
                return m.Leases(tuple(await self.desk.ask(peer.index, capacity)))
            case m.Renew(leases):
                self.admission.renew(peer.index, leases)
                if ended := tuple(lease for lease in leases if not self.admission.is_open(lease)):
                    await self._notify(peer, m.Cancel(ended))
                return m.Ack()
            case m.Deliver(group):
                return self._deliver(group, peer.index)
            case m.AskNovelty(task_type, key, program_key):
                return m.Novelty(self.book.status(task_type, key, program_key))
            case m.WantShare(rank, step):
                return await self._share(rank, step)
            case m.StepDone():
                return self._step_done(message)
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

    def _make(self, lease: int, version: int) -> Lease:
        self.leases.granted(lease, version)
        return self._maker.make(lease, version)

    def _ended(self, end: Ended) -> None:
        self.leases.ended(end.lease, end.attempt, end.fate, end.step)

    def _deliver(self, group: Group, actor: int) -> m.Ack:
        if group.incarnation != self._config.run.incarnation:
            raise WireError(f"group of incarnation {group.incarnation}: its weights no longer exist")
        require_consistent(group)
        opened = self.admission.is_open(group.lease)
        if opened and group.flags:
            group = self.safety.take(group)
            self._fail(self.safety.stopped(group))
        if group.kind in APART:
            self.admission.deliver(group)
            if opened and not self.admission.is_open(group.lease):
                self._answered(group)
        else:
            if opened and not group.failure:
                self.journal.append(group)
            self.admission.deliver(group)
            self._form(actor)
        self._wake()
        return m.Ack()

    def _form(self, actor: int = -1) -> None:
        """All batches that are complete; `actor` has just delivered a group."""
        while (batch := self.admission.form()) is not None:
            step = self.admission.batched - 1
            self.journal.append(m.BatchFormed(step, tuple(group.lease for group in batch)))
            self.journal.sync()
            self.log.mark("batch", step=step, actor=actor)
            with self.tally.during(BATCH):
                self._take_batch(step, batch)
            self.weights.reconsider()

    def _take_batch(self, step: int, batch: list[Group]) -> None:
        found = prepared(step, batch, self._config, self.book, self._batches.values(), self._programs)
        self.auto_eta.formed(step)
        self._batches[step], self._shares[step] = found

    def _answered(self, group: Group) -> None:
        """A group that no quota counts has come, or has failed."""
        if group.kind is Kind.EVAL:
            if (result := self.evaluation.deliver(group)) is not None:
                self._evaluated(result)
            return
        try:
            self.seeding.deliver(group)
        except AzrError as error:
            self._fail(error)

    def _fail(self, error: AzrError | None) -> None:
        if error is not None and not self._failure.done():
            self._failure.set_exception(error)

    # -- trainer -------------------------------------------------------------------------------------------------

    async def _share(self, rank: int, step: int) -> m.ShareReply:
        self.auto_eta.asked(step)
        if self.weights.available is None and rank == 0:
            self.weights.step_ready(step)
        while not self._may_train(step):
            if step >= self._config.learner.steps and self.finished.is_set():
                return m.ShareReply(None)
            await self._changed.wait()
        return m.ShareReply(self._shares[step][rank], self._saves(step))

    def _saves(self, step: int) -> bool:
        every = self._config.learner.save_every
        return step + 1 == self._config.learner.steps or (every > 0 and (step + 1) % every == 0)

    def _may_train(self, step: int) -> bool:
        """A step may run while the push of the one before is under way, no more.

        While pushes are held none is under way, and the publisher must keep the version in force for late joiners.
        Exact staleness lets no version be skipped, and a run that resumes has no weights but those of the checkpoint:
        what older ones are to sample must be in the journal before.
        """
        exact = self.admission.limits.exact
        lead = 0 if self.evaluation.active or exact else 1
        version = self.weights.version
        ready = step in self._shares and version is not None and version >= step - lead
        return ready and (self.admission.complete or not self._saves(step))

    def _step_done(self, done: m.StepDone) -> m.Ack:
        if done.step < self._step:
            return m.Ack()
        batch = self._batches[done.step]
        parts = self.admission, self.book, self._pushes, self.safety.counts
        row = {**step_row(done, batch, self._config, *parts), **self.auto_eta.trained(done)}
        self.analyst.trained(done.step, batch)
        self.log.step(row, staleness_histogram(done.step, batch))
        with self.leases.together():
            self.admission.trained(done.step, batch)
            self.leases.adapt(self.admission.limits.eta)
        self.log.rejected.update(rejections(sample for group in batch for sample in group.samples))
        del self._shares[done.step]
        self._step = done.step + 1
        self.weights.step_ready(self._step)
        self._wake()
        return m.Ack()

    def _checkpoint_done(self, step: int, path: str) -> m.Ack:
        """The journal lets go of what the checkpoint contains only once a resume would find the checkpoint."""
        record_checkpoint(self._folder, step, path, self.admission.limits.eta)
        self.journal.compact(sorted(self._batches.items()), self.admission.waiting_groups())
        self._saved = step
        self._finish_if_over()
        return m.Ack()

    # -- versions ------------------------------------------------------------------------------------------------

    def _version_committed(self, record: PushRecord) -> None:
        self._pushes.append(record)
        for step in sorted(s for s in self._batches if s < record.version):
            self.book.add_batch(step + 1, self._batches.pop(step))
        late = self.admission.advance(record.version)
        self.leases.serve(record.version)
        self.weights.step_ready(self._step)
        for actor in {a for a, _ in late if a is not None}:
            leases = tuple(lease for a, lease in late if a == actor)
            notice = asyncio.ensure_future(self._notify(Peer("actor", actor), m.Cancel(leases)))
            self._notices.add(notice)
            notice.add_done_callback(self._notices.discard)
        if self.evaluation.due(record.version):
            self.evaluation.begin(record.version)
        self.log.mark("version", version=record.version, held=int(self.evaluation.active))
        self._form()
        self._finish_if_over()
        self.desk.version_changed()
        self._wake()

    def _evaluated(self, result: Round) -> None:
        self.log.evaluation(result)
        self.leases.evaluated(result.version)
        self.weights.reconsider()
        self._finish_if_over()

    def _finish_if_over(self) -> None:
        if min(self.admission.version, self._saved) >= self._config.learner.steps and not self.evaluation.active:
            self._finish()

    def _finish(self) -> None:
        self.finished.set()
        self.desk.close()
        self._wake()

    # -- view ----------------------------------------------------------------------------------------------------

    async def reached(self, version: int) -> None:
        """Return once `version`, or a later one, is in service."""
        while (self.weights.version or 0) < version:
            await self._changed.wait()

    def status(self) -> dict[str, Any]:
        parts = self.admission, self.weights, self.evaluation, self.seeding, self.safety
        own = {"step": self._step, "steps": self._config.learner.steps, **self.auto_eta.status()}
        return {**own, **of_now(*parts), **self.log.status()}

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
        self.desk.serve()
