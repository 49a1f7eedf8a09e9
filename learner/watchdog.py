"""The watchdog: says who waits for whom when nothing moves, instead of letting a run hang in silence.

It stands between the intake and its server and sees what peers ask and tell. Something *moves* when leases are granted,
a group is delivered, a step or a checkpoint is done, or a push gets on. If nothing has for `cluster.watchdog` seconds,
it writes once to the log and to the view what every part is in and since when, who asks for what, which leases are
open, what the next batch lacks and how far the push is. After `cluster.watchdog_end` seconds it ends the run with the
name of the part that all wait for, as far as that can be told.

Not guaranteed: that a stall is a fault; a training step, or an answer, that takes longer than the bound is one, too. It
does not see an intake that hangs itself; the driver does (azr/host.py).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from common import messages as m
from common.clock import Clock
from common.errors import PartFailed
from common.transport import Peer
from common.types import Kind
from learner.intake import Intake

log = logging.getLogger(__name__)

LOOK = 1.0  # seconds between looks
SILENT = 5.0  # seconds without a report after which it is said
MOVES = (m.Deliver, m.StepDone, m.CheckpointDone, m.Offer, m.Published, m.Staged, m.Committed)
WAITING = ("wait-lease", "wait-batch")  # states of a part that waits for the intake


@dataclass(slots=True)
class _Part:
    """What its reports say: a state, since when, and when the last one came."""

    state: str
    since: float
    heard: float


class Watchdog:
    """Handler of the intake's server. Bounds are seconds; 0: never."""

    def __init__(self, intake: Intake, clock: Clock, bound: float, end: float) -> None:
        self.stall: tuple[str, ...] = ()  # what was told of the stall that goes on; empty while things move
        self._intake, self._clock, self._bound, self._end = intake, clock, bound, end
        self._moved = clock.now()
        self._parts: dict[str, _Part] = {}
        self._polls: dict[
            tuple[str, type], tuple[m.WantShare | m.WantLeases, float]
        ] = {}  # what is asked for, and since when

    # -- transport handler ---------------------------------------------------------------------------------------

    def joined(self, peer: Peer, hello: m.Hello) -> None:
        self._intake.joined(peer, hello)

    def left(self, peer: Peer, reason: str) -> None:
        self._parts.pop(_name(peer), None)
        self._intake.left(peer, reason)

    async def handle(self, peer: Peer, message: Any) -> object:
        if isinstance(message, m.Report):
            self._hear(message)
        elif isinstance(message, MOVES):
            self._move()
        poll = (_name(peer), type(message))
        if isinstance(message, m.WantShare | m.WantLeases):
            self._polls[poll] = (message, self._clock.now())
        try:
            reply = await self._intake.handle(peer, message)
        finally:
            self._polls.pop(poll, None)
        if isinstance(reply, m.Leases) and reply.leases:
            self._move()
        return reply

    def _hear(self, report: m.Report) -> None:
        now, known = self._clock.now(), self._parts.get(report.part)
        same = known is not None and all(
            state == known.state for state in (report.state, *(s for s, _, _ in report.spans))
        )
        self._parts[report.part] = _Part(report.state, known.since if known and same else now, now)

    # -- watching ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. PartFailed after `end` seconds in which nothing moved."""
        self._move()
        while True:
            await self._clock.sleep(LOOK)
            self.look()

    def look(self) -> None:
        still = self._clock.now() - self._moved
        if self._bound and still >= self._bound and not self.stall:
            self.stall = (f"nothing has moved for {still:.0f} s; all wait for {self._suspect()}", *self._standing())
            log.warning("%s", "\n  ".join(self.stall))
        if self._end and still >= self._end:
            what = f"nothing has moved for {still:.0f} s:\n    " + "\n    ".join(self._standing())
            raise PartFailed(
                self._suspect(), what, hint="its log in logs/; cluster.watchdog_end if it only needs longer"
            )

    def _move(self) -> None:
        if self.stall:
            log.warning("something moves again after %.0f s", self._clock.now() - self._moved)
        self._moved, self.stall = self._clock.now(), ()

    # -- what is told --------------------------------------------------------------------------------------------

    def _suspect(self) -> str:
        """The part that the others wait for: of the push, of the learner's work, of the groups, in this order."""
        parts = self._intake.weights.pending.parts
        if not parts:
            parts = tuple(n for n, p in self._parts.items() if n.startswith("trainer") and p.state not in WAITING)
        if not parts:
            parts = tuple(sorted(self._held()))
            if parts and all((p := self._parts.get(name)) and p.state == "wait-executor" for name in parts):
                return f"the executor, for which {', '.join(parts)} waits"
        return ", ".join(parts) or "the intake, or actors that ask for nothing"

    def _standing(self) -> Iterator[str]:
        yield from self._of_parts()
        admission, weights = self._intake.admission, self._intake.weights
        held = admission.holders.pop(None, None)
        if held:
            yield f"nobody has taken {_counts(held)} that {'was' if held.total() == 1 else 'were'} given back"
        lacks = {k: size - admission.waiting[k] for k, size in admission.quota.items() if size > admission.waiting[k]}
        if admission.batched < admission.limits.steps and lacks:
            yield f"the batch of step {admission.batched} lacks {_counts(lacks)}"
        yield f"version {weights.version} is in force, {admission.batched} batches are formed; push: {weights.pending}"
        if self._intake.evaluation.active:
            yield "an evaluation is under way, and no push goes out"
        if not admission.complete:
            last = min(admission.version + admission.limits.eta, admission.limits.steps - 1)
            yield f"staleness is exact, and no push goes out before the batch of step {last} is formed"
        if self._intake.seeding.active:
            yield "the book is being seeded"

    def _of_parts(self) -> Iterator[str]:
        now, held = self._clock.now(), self._held()
        asked: dict[str, list[str]] = {}
        for (name, _), (message, since) in sorted(self._polls.items(), key=lambda item: item[1][1]):
            asked.setdefault(name, []).append(f"asks for {_wish(message)} for {now - since:.0f} s")
        for name in sorted({*self._parts, *asked, *held}):
            part, does = self._parts.get(name), asked.get(name, [])
            if part is not None:
                does = [f"in {part.state} for {now - part.since:.0f} s", *does]
                if now - part.heard > SILENT:
                    does.append(f"last heard of {now - part.heard:.0f} s ago")
            if name in held:
                does.append(f"holds leases for {_counts(held[name])}")
            yield f"{name}: {', '.join(does)}"

    def _held(self) -> dict[str, Counter[Kind]]:
        """Open leases by actor."""
        return {f"actor-{a}": kinds for a, kinds in self._intake.admission.holders.items() if a is not None}


def _name(peer: Peer) -> str:
    return f"{peer.role}-{peer.index}"


def _wish(message: m.WantShare | m.WantLeases) -> str:
    return f"the batch of step {message.step}" if isinstance(message, m.WantShare) else f"{message.capacity} leases"


def _counts(kinds: Mapping[Kind, int]) -> str:
    return ", ".join(f"{count} {kind.value}" for kind, count in sorted(kinds.items()))
