"""The real intake on a real folder, killed after any of its writes, under whatever its peers do.

Two deaths are played. Of the intake alone: it comes back in the same incarnation, while actors hold their leases and
trainer ranks and publisher repeat what was not answered. Of the run: it resumes, all parts in a new incarnation, from
the newest checkpoint. In between groups come late, twice, out of order or never, actors die or fall silent, pushes are
slow.

Whatever happens, each lease ends once; what was acknowledged is not lost; a batch, once formed, is the same groups in
the same order for ever, and what it is trained as is bit-equal; the book is that of its version.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
import sqlite3
import tempfile
from collections.abc import Coroutine
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from common import messages as m
from common.config import Config, EvalConfig
from common.errors import WireError
from common.transport import Peer
from common.types import Group, Kind, Lease, MicroBatch, Share
from learner.resume_point import latest_checkpoint
from learner.settlement import settle
from learner.snapshots import KEPT
from learner.task_book import TaskBook
from tests.fakes.death import Death
from tests.fakes.groups import a_task, fulfil
from tests.fakes.peers import LOGPROBS, SEEDS, Stage, small

STEPS = 4
GROUPS = 6  # in a batch
SEED = st.integers(0, 1 << 16)
WRITES = st.integers(1, 90)
ACTORS = st.integers(0, 1)
TRAINER = Peer("trainer", 0)
EVENTS = "SELECT version, event, key, lease, type, solve_rate, task FROM events ORDER BY seq"
alive = precondition(lambda self: not self.dead)


def equal(one: Share, other: Share) -> bool:
    return (one.step, one.updates) == (other.step, other.updates) and all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for a, b in zip(one.micro_batches, other.micro_batches, strict=True)
        for name in MicroBatch.__dataclass_fields__
    )


class Lives(RuleBasedStateMachine):
    """`self.stage` has the intake that lives, or has just died; the rest is what its peers and the world remember."""

    @initialize(
        eta=st.integers(0, 2),
        exact=st.booleans(),
        save_every=st.sampled_from([1, 1, 2, 0]),
        questions=st.integers(0, 1),
    )
    def begin(self, eta: int, exact: bool, save_every: int, questions: int) -> None:
        config = small(steps=STEPS, eta=eta, save_every=save_every)
        lag = dataclasses.replace(config.staleness, mode="exact" if exact else "natural")
        self.config: Config = dataclasses.replace(config, staleness=lag, eval=EvalConfig(every=2))
        self.questions = [a_task(f"asked {n}") for n in range(questions)]
        self.exact = exact
        self.runner = asyncio.Runner()
        self.root = tempfile.TemporaryDirectory()
        self.images = 0
        self.death: Death | None = None
        self.dead = False
        self.joined = {0, 1}
        self.leases: dict[int, Lease] = {}  # newest attempt that an actor got of each
        self.acknowledged: set[int] = set()  # leases whose group was taken in, and the actor knows it
        self.groups: dict[int, Group] = {}  # all that were ever in the journal
        self.formed: dict[int, tuple[int, ...]] = {}  # leases of each batch
        self.shares: dict[int, Share] = {}
        self.folder = Path(self.root.name) / "0"
        self.folder.mkdir()
        self.new_incarnation(0)
        self.play(self.set_stage(None))

    def new_incarnation(self, first: int) -> None:
        self.held: list[tuple[int, Lease]] = []  # what actors work on, whether they still should or not
        self.sent: list[tuple[int, Group]] = []
        self.asking: dict[int, asyncio.Task[Any]] = {}
        self.first = self.trained = first  # batches that the ranks have trained
        self.share: m.ShareReply | None = None
        self.untold: list[object] = []  # what trainer rank 0 has to say, not yet answered

    async def set_stage(self, resumed: int | None, *, alone: bool = False) -> None:
        self.stage = Stage(self.config, self.folder, self.questions)
        if alone:
            self.stage.intake.rejoin(self.images)
        elif resumed is not None:
            self.stage.intake.resume(resumed)
        self.permits = asyncio.Semaphore(0)
        self.wanting = False
        await self.stage.begin(publishing=False)
        self.stage.spawn(self.publish())
        for actor in sorted(self.joined):
            self.stage.join(actor)
        await self.stage.settle()

    def play(self, work: Coroutine[Any, Any, Any]) -> None:
        """Let `work` be done, and what follows from it; if the intake dies in it, everybody has lost it."""
        with self.death or nullcontext():
            self.runner.run(work)
        self.dead = self.struck
        if not self.dead:
            self.look()

    @property
    def struck(self) -> bool:
        return self.death is not None and self.death.struck

    # -- peers ---------------------------------------------------------------------------------------------------

    async def publish(self) -> None:
        """Rank 0 pushes what it is asked for, as soon as it may."""
        front = self.stage.intake
        while True:
            push = await front.handle(TRAINER, m.WantPush())
            assert isinstance(push, m.Push)
            if push.stop or self.struck:
                return
            assert max(self.first, self.trained + 1 - KEPT) <= push.version <= self.trained
            await self.permits.acquire()
            await front.handle(TRAINER, m.Offer(push.version, push.epoch, "here", 1, (), "", (), LOGPROBS))
            await front.handle(TRAINER, m.Published(push.version, push.epoch))

    async def want(self, actor: int, capacity: int) -> None:
        reply = await self.stage.intake.handle(Peer("actor", actor), m.WantLeases(capacity))
        assert isinstance(reply, m.Leases)
        if self.struck:
            return
        for lease in reply.leases:
            assert self.stage.intake.leases.is_open(lease.id)
            before = self.leases.get(lease.id)
            if before is not None:
                assert (lease.seed, lease.task, lease.references) == (before.seed, before.task, before.references)
                assert lease.attempt > before.attempt
            self.leases[lease.id] = lease
            self.held.append((actor, lease))

    async def send(self, actor: int, group: Group) -> None:
        """An acknowledged group is in the journal, if it is of use."""
        intake = self.stage.intake
        was_open = intake.admission.is_open(group.lease)
        assert await intake.handle(Peer("actor", actor), m.Deliver(group)) == m.Ack()
        if self.struck or not was_open or group.failure or group.kind is Kind.EVAL:
            return
        self.acknowledged.add(group.lease)
        if intake.leases.is_open(group.lease):
            self.look()
            taken = self.groups[group.lease]
            assert (taken.attempt, taken.proposal) == (group.attempt, group.proposal)

    async def want_share(self) -> None:
        reply = await self.stage.intake.handle(TRAINER, m.WantShare(0, self.trained))
        assert isinstance(reply, m.ShareReply)
        if not self.struck:
            self.share, self.wanting = reply, False

    async def tell(self, message: object) -> None:
        assert await self.stage.intake.handle(TRAINER, message) == m.Ack()
        if not self.struck and self.untold[:1] == [message]:
            del self.untold[0]

    async def doing(self, work: Coroutine[Any, Any, Any]) -> None:
        task = self.stage.spawn(work)
        await self.stage.settle()
        if not self.struck:
            assert task.done()
            task.result()

    # -- actors --------------------------------------------------------------------------------------------------

    @alive
    @rule(actor=ACTORS, capacity=st.integers(1, 12))
    def ask(self, actor: int, capacity: int) -> None:
        async def asking() -> None:
            self.asking[actor] = self.stage.spawn(self.want(actor, capacity))
            await self.stage.settle()

        if actor in self.joined and (actor not in self.asking or self.asking[actor].done()):
            self.play(asking())

    @precondition(lambda self: not self.dead and self.held)
    @rule(data=st.data(), failure=st.sampled_from(["", "", "infra"]), same=st.booleans())
    def deliver(self, data: st.DataObject, failure: str, same: bool) -> None:
        at = data.draw(st.integers(0, len(self.held) - 1))
        oldest = self.held[at][1].version
        version = data.draw(st.integers(oldest, max(oldest, self.stage.intake.admission.version)))
        self.answer(at, version=version, failure=failure, same=same)

    def answer(self, at: int, *, version: int | None = None, failure: str = "", same: bool = False) -> None:
        """`same`: a proposal of deduction has the program that others have, too."""
        actor, lease = self.held.pop(at)
        group = fulfil(lease, version=version, incarnation=self.config.run.incarnation, failure=failure)
        if same and group.proposal is not None and group.kind is Kind.PROPOSE_DEDUCTION:
            group = dataclasses.replace(group, proposal=a_task(f"of {lease.id}", program="the same"))
        self.sent.append((actor, group))
        self.play(self.doing(self.send(actor, group)))

    @precondition(lambda self: not self.dead and self.sent)
    @rule(data=st.data())
    def deliver_again(self, data: st.DataObject) -> None:
        actor, group = data.draw(st.sampled_from(self.sent[-20:]))
        self.play(self.doing(self.send(actor, group)))

    @alive
    @rule(actor=ACTORS, what=st.sampled_from(["renew", "die", "fall silent", "come back", "come back"]))
    def live(self, actor: int, what: str) -> None:
        """What a silent one works on will still come."""
        leases = tuple(lease.id for a, lease in self.held if a == actor)
        if what == "renew":
            self.play(self.doing(self.stage.intake.handle(Peer("actor", actor), m.Renew(leases))))
            return
        if what == "die":
            self.held = [(a, lease) for a, lease in self.held if a != actor]
        self.play(self.join(actor) if what == "come back" else self.leave(actor))

    async def leave(self, actor: int) -> None:
        self.joined.discard(actor)
        if actor in self.asking:
            self.asking.pop(actor).cancel()
        self.stage.leave(actor)
        await self.stage.settle()

    async def join(self, actor: int) -> None:
        await self.leave(actor)
        self.joined.add(actor)
        self.stage.join(actor)
        await self.stage.settle()

    @alive
    @rule(seconds=st.floats(0.0, 25.0))
    def wait(self, seconds: float) -> None:
        self.play(self.stage.clock.advance(seconds))

    # -- learner -------------------------------------------------------------------------------------------------

    @alive
    @rule()
    def push(self) -> None:
        async def pushing() -> None:
            self.permits.release()
            await self.stage.settle()

        self.play(pushing())

    @rule()
    def learn(self) -> None:
        """Whatever rank 0 has to do next; to train it needs no intake that lives."""
        if self.share is not None and self.share.share is not None:
            self.train(self.share.share, self.share.save)
            self.share = None
        elif self.untold and not self.dead:
            self.play(self.doing(self.tell(self.untold[0])))
        elif not (self.dead or self.share or self.wanting):
            self.play(self.ask_for_share())

    async def ask_for_share(self) -> None:
        self.wanting = True
        self.stage.spawn(self.want_share())
        await self.stage.settle()

    def train(self, share: Share, save: bool) -> None:
        assert share.step == self.trained
        assert equal(share, self.shares.setdefault(share.step, share))
        ages = np.concatenate([batch.staleness for batch in share.micro_batches])
        assert ages.max() <= self.config.staleness.bound
        if self.exact:
            assert set(ages) == {min(share.step, self.config.staleness.eta)}
        self.trained += 1
        self.untold.append(m.StepDone(share.step, {"loss": 0.5}, 0.1))
        if save:
            self.untold.append(m.CheckpointDone(self.trained, f"checkpoints/step-{self.trained:06d}"))

    @alive
    @rule(seed=SEED, rounds=st.integers(1, 4))
    def go_on(self, seed: int, rounds: int) -> None:
        """Everybody does what is theirs, for a while; groups come in any order."""
        order = random.Random(seed)
        for _ in range(rounds):
            for actor in self.joined:
                if not self.dead:
                    self.ask(actor, 12)
            for _ in range(len(self.held)):
                if not self.dead and order.random() < 0.8:
                    self.answer(order.randrange(len(self.held)), same=order.random() < 0.5)
            if not self.dead:
                self.push()
            self.learn()
            self.learn()

    # -- deaths --------------------------------------------------------------------------------------------------

    @alive
    @rule(writes=WRITES)
    def doom(self, writes: int) -> None:
        """The intake dies after so many writes."""
        self.images += 1
        self.death = Death(self.folder, Path(self.root.name) / str(self.images), writes)

    @alive
    @rule(seed=SEED, writes=WRITES, alone=st.booleans())
    def go_on_and_die(self, seed: int, writes: int, alone: bool) -> None:
        self.doom(writes)
        self.go_on(seed, 8)
        if self.dead:
            self.restart(alone)

    @precondition(lambda self: self.dead)
    @rule(alone=st.booleans())
    def restart(self, alone: bool) -> None:
        """The intake alone, or the run from its checkpoint."""
        assert self.death is not None
        self.runner.run(self.stage.crash())
        self.folder, self.death, self.dead = self.death.image, None, False
        self.asking.clear()
        if alone:
            self.play(self.set_stage(None, alone=True))
        else:
            old = self.sent[-1:]
            step, _ = latest_checkpoint(self.folder)
            run = dataclasses.replace(self.config.run, incarnation=self.config.run.incarnation + 1)
            self.config = dataclasses.replace(self.config, run=run)
            self.new_incarnation(step)
            self.play(self.set_stage(step))
            for actor, group in old:
                with pytest.raises(WireError, match="no longer exist"):
                    self.runner.run(self.send(actor, group))
        self.compare_books()

    # -- what must hold ------------------------------------------------------------------------------------------

    def look(self) -> None:
        """What is in the journal; groups and batches that were there before are as they were."""
        journal = self.stage.intake.journal.read()
        for step, batch in journal.batches.items():
            leases = tuple(group.lease for group in batch)
            assert self.formed.setdefault(step, leases) == leases
        for group in (*journal.waiting.values(), *(group for batch in journal.batches.values() for group in batch)):
            assert self.groups.setdefault(group.lease, group).attempt == group.attempt

    def on_file(self) -> list[tuple[int, str | None, int | None]]:
        db = sqlite3.connect(self.folder / "tasks.sqlite")
        rows: list[tuple[int, str | None, int | None]] = db.execute("SELECT id, fate, step FROM leases").fetchall()
        db.close()
        return rows

    @invariant()
    def every_lease_is_in_one_place(self) -> None:
        if self.dead:
            return
        intake, rows = self.stage.intake, self.on_file()
        opened = {lease for lease, fate, _ in rows if fate is None}
        waiting = {group.lease for group in intake.admission.waiting_groups()}
        under_way = {lease for step, batch in self.formed.items() if step >= intake._step for lease in batch}
        held = {lease for lease in opened if intake.admission.is_open(lease)}
        assert opened == held | waiting | under_way
        assert len(opened) == sum(intake.admission.open.values()) + len(waiting) + len(under_way)
        trained = {(lease, step) for lease, fate, step in rows if fate == "trained"}
        assert trained == {(lease, step) for step in range(intake._step) for lease in self.formed[step]}
        assert set(self.leases) <= {lease for lease, _, _ in rows}

    @invariant()
    def no_group_is_in_two_batches(self) -> None:
        leases = [lease for batch in self.formed.values() for lease in batch]
        assert len(leases) == len(set(leases))

    @invariant()
    def nothing_acknowledged_is_lost(self) -> None:
        if not self.dead:
            fates = {fate for lease, fate, _ in self.on_file() if lease in self.acknowledged}
            assert fates <= {None, "trained", "stale", "inexact", "lost_weights"}

    def compare_books(self) -> None:
        """The book on file is what settling the batches of its version, one after the other, makes of an empty one."""
        version = self.stage.intake.admission.version
        expected = TaskBook(Path(":memory:"), SEEDS, self.config)
        for step in range(version):
            batch = [self.groups[lease] for lease in self.formed[step]]
            expected.add_batch(step + 1, settle(step, batch, self.config, expected, ()))
        db = sqlite3.connect(self.folder / "tasks.sqlite")
        assert db.execute(EVENTS).fetchall() == expected._db.execute(EVENTS).fetchall()
        db.close()
        expected.close()

    # -- the end -------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "stage"):
            return
        try:
            if self.dead:
                self.restart(alone=True)
            self.death = None
            fates = self.runner.run(self.finish())
            assert "open" not in fates
            assert fates["trained"] == STEPS * GROUPS
            assert sum(fates.values()) == len(self.on_file())
            assert set(self.formed) == set(range(STEPS))
            self.compare_books()
        finally:
            self.runner.run(self.stage.crash())
            self.runner.close()
            self.root.cleanup()

    async def finish(self) -> dict[str, int]:
        """Everybody does what is asked of them, until the run is over."""
        for actor in (1, 0):
            await self.leave(actor)
        await self.join(0)
        self.stage.spawn(self.stage.act(0))
        for _ in range(8 * STEPS):
            if self.stage.running.done():
                break
            self.permits.release()
            await self.stage.settle()
            if self.share is not None and self.share.share is not None:
                self.train(self.share.share, self.share.save)
                self.share = None
            elif self.untold:
                await self.doing(self.tell(self.untold[0]))
            elif not self.wanting:
                await self.ask_for_share()
            self.look()
        self.stage.running.result()
        return dict((await self.stage.close())["leases"])


Lives.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
TestExactlyOnce = Lives.TestCase
