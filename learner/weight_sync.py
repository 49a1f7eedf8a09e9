"""Weight versions: which engine serves what, and when the next push goes out. Lives in the intake, without torch.

A push has two phases. *Stage*: the publisher (trainer rank 0) and every engine form a group (a new *epoch* whenever
membership changed) and broadcast into staging buffers while decoding goes on; a failure abandons the attempt and no
engine has changed. A broken broadcast does not say which member broke it, so an engine that did not fail alone
gets a second chance in a new group. *Commit*: each engine loads its buffer in a short pause, then scores the probe; an
engine whose log-probs differ from the learner's by more than the tolerance leaves service.

An engine enters service by committing a push, the first one included; so a fresh run, a resumed one, a restarted
engine and a late joiner take the same path. The version advances when every engine in the group has committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from common.clock import Clock
from common.errors import PartFailed
from common.messages import Ack, Commit, Committed, Declined, Offer, Published, Push, Stage, Staged, Stop

log = logging.getLogger(__name__)

Notify = Callable[[int, object], Awaitable[None]]
_T = TypeVar("_T")
STOP = Push(-1, -1, 0, stop=True)
ENGINE_ATTEMPTS = 2  # broken broadcasts in a row after which an engine that failed in each leaves service
NO_ANSWER = "no answer"
EPOCHS = 1 << 32  # more than one life of the intake has
PUBLISHER = "trainer-0"
PUSH_ATTEMPTS = 3  # pushes in a row abandoned with no engine to blame, after which the publisher is


@dataclass
class _Engine:
    committed: int | None = None  # version it serves
    staged: asyncio.Future[str] | None = None
    loaded: asyncio.Future[Committed] | None = None
    gone: bool = False
    failures: int = 0  # to stage, since it last did


@dataclass
class PushRecord:
    """What one push cost, seconds: for the metrics."""

    version: int
    engines: int  # members of the group, those that served the version already included
    stage: float = 0.0
    sent: int = 0  # bytes that travelled to each member,
    whole: int = 0  # of so many
    pauses: list[float] = field(default_factory=list)
    loads: list[float] = field(default_factory=list)
    probe_difference: float = 0.0
    checksums: dict[int, str] = field(default_factory=dict)  # by engine, where asked for


@dataclass(frozen=True, slots=True)
class Pending:
    """What a push waits for: `parts` are to `what`, as its text says."""

    parts: tuple[str, ...] = ()
    what: str = ""

    def __str__(self) -> str:
        return f"waits for {', '.join(self.parts)} to {self.what}" if self.parts else "none under way"


class WeightSync:
    """Drives pushes.

    `available` is the newest version the publisher holds (it keeps the one in force too); `held` says that no new
    version may go out. `timeout`, in seconds, is what each answer of a peer may take.
    """

    def __init__(
        self,
        notify: Notify,
        committed: Callable[[PushRecord], None],
        clock: Clock,
        *,
        held: Callable[[], bool],
        tolerance: float,
        timeout: float,
    ) -> None:
        self.version: int | None = None  # None until the first push of this incarnation is in
        self.available: int | None = None
        self._notify, self._committed, self._clock, self._held = notify, committed, clock, held
        self._tolerance, self._timeout = tolerance, timeout
        self._engines: dict[int, _Engine] = {}
        self._group: frozenset[int] = frozenset()
        self._epoch = 0
        self._abandoned = 0
        self._wake = asyncio.Event()
        self._stopped = False
        self._want_push: asyncio.Future[Push] | None = None
        self._offer: asyncio.Future[Offer | None] | None = None  # None: the publisher has failed before
        self._published: asyncio.Future[Published] | None = None
        self._loading: dict[int, _Engine] = {}  # told to commit
        self._pushing: int | None = None  # version under way

    # -- what peers say ------------------------------------------------------------------------------------------

    def engine_joined(self, index: int) -> None:
        self.engine_left(index)
        self._engines[index] = _Engine()
        self._wake.set()

    def adopt(self, index: int) -> None:
        """The engine that joined serves what it was started with, version 0: nobody publishes anything."""
        self._engines[index].committed = self.version = 0

    def engine_left(self, index: int) -> None:
        engine = self._engines.pop(index, None)
        if engine is None:
            return
        engine.gone = True
        if index in self._group:
            self._group = frozenset()  # whoever comes back under this index is another process
        if engine.staged is not None and not engine.staged.done():
            engine.staged.set_result("left")
        if engine.loaded is not None and not engine.loaded.done():
            engine.loaded.set_result(Committed(-1, error="left"))
        self._wake.set()

    def in_service(self, index: int) -> bool:
        engine = self._engines.get(index)
        return engine is not None and self.version is not None and engine.committed == self.version

    def step_ready(self, version: int) -> None:
        """The publisher holds a snapshot of `version`."""
        self.available = version
        self._wake.set()

    def rejoin(self, version: int | None, life: int) -> None:
        """Peers outlived this process, for the `life`-th time: the publisher holds `version`, the one in service, and
        no group that is left from before may pass for a new one. None: nothing was, and nothing need be held yet."""
        self._epoch = life * EPOCHS
        if version is not None:
            self.step_ready(version)

    def reconsider(self) -> None:
        """Something outside changed (an evaluation ended, say): look again whether a push may go."""
        self._wake.set()

    async def want_push(self) -> Push:
        if self._stopped:
            return STOP
        self._want_push = asyncio.get_running_loop().create_future()
        self._wake.set()
        return await self._want_push

    def stop(self) -> None:
        """Let the publisher go, whenever it asks."""
        self._stopped = True
        if self._want_push is not None and not self._want_push.done():
            self._want_push.set_result(STOP)

    def offer(self, message: Offer) -> Ack | Declined:
        """Declined if this push is no longer, or, made by an intake that has died, not yet under way."""
        if self._offer is None or (message.version, message.epoch) != (self._pushing, self._epoch):
            return Declined()
        if not self._offer.done():
            self._offer.set_result(message)
        return Ack()

    def published(self, message: Published) -> Ack:
        if self._published is not None and not self._published.done():
            self._published.set_result(message)
            if self._offer is not None and not self._offer.done():
                self._offer.set_result(None)
        return Ack()

    def staged(self, index: int, message: Staged) -> Ack:
        engine = self._engines.get(index)
        if engine and engine.staged is not None and not engine.staged.done() and message.epoch == self._epoch:
            engine.staged.set_result(message.error)
        return Ack()

    def committed(self, index: int, message: Committed) -> Ack:
        engine = self._engines.get(index)
        if engine and engine.loaded is not None and not engine.loaded.done() and message.version == self._pushing:
            engine.loaded.set_result(message)
        return Ack()

    @property
    def pending(self) -> Pending:
        """Whom the push under way waits for, or the one that is due."""
        if self._pushing is None:
            stale = self._target is not None and any(e.committed != self._target for e in self._engines.values())
            return Pending((PUBLISHER,), "ask for a push") if stale and self._want_push is None else Pending()
        if self._offer is not None and not self._offer.done():
            return Pending((PUBLISHER,), f"offer version {self._pushing}")
        if self._loading:
            late = tuple(f"actor-{i}" for i, e in self._loading.items() if e.loaded is not None and not e.loaded.done())
            return Pending(late, f"load version {self._pushing}")
        sending = self._published is not None and not self._published.done()
        late = tuple(f"actor-{i}" for i in self._group if (s := self._engines[i].staged) is not None and not s.done())
        return Pending((PUBLISHER,) * sending + late, f"stage version {self._pushing}")

    # -- the loop ------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. PartFailed if the publisher cannot get any version out."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._due():
                self._pushing = self._target
                again = await self._push()
                self._pushing, self._loading = None, {}
                if not again:
                    break

    @property
    def _target(self) -> int | None:
        """While pushes are held, an engine that joins still gets the version in force."""
        return self.version if self._held() and self.version is not None else self.available

    def _due(self) -> bool:
        target = self._target
        if target is None or not self._engines or self._want_push is None or self._want_push.done():
            return False
        return any(engine.committed != target for engine in self._engines.values())

    async def _push(self) -> bool:
        """One attempt. False if nothing more can be done until somebody joins, leaves or asks."""
        loop = asyncio.get_running_loop()
        version = self._target
        assert self._want_push is not None and version is not None
        members = frozenset(self._engines)
        if members != self._group:
            self._epoch += 1
            self._group = members
        asked, self._want_push = self._want_push, None
        self._offer, self._published = loop.create_future(), loop.create_future()
        engines = {index: self._engines[index] for index in sorted(members)}
        for engine in engines.values():
            engine.staged, engine.loaded = loop.create_future(), loop.create_future()
        asked.set_result(Push(version, self._epoch, 1 + len(members)))
        began = self._clock.now()
        offer = await self._within(self._offer)
        if offer is None:
            self._group = frozenset()
            if self._published.done():
                return self._abandon(version, self._published.result().error)
            log.error("the publisher did not offer version %d within %.0f s", version, self._timeout)
            return False
        for rank, index in enumerate(engines, start=1):
            await self._notify(
                index,
                Stage(offer.epoch, version, offer.host, offer.port, rank, 1 + len(members),
                      offer.tensors, offer.checksum, self._timeout, offer.shipment),
            )  # fmt: skip
        published = await self._within(self._published)
        broken = "the publisher did not answer" if published is None else published.error
        unstaged = {index: error for index, e in engines.items() if (error := await self._staging(e))}
        if published is not None and not broken and not unstaged:
            self._abandoned = 0
            stage = self._clock.now() - began
            record = PushRecord(version, len(engines), stage, published.sent, published.whole)
            return await self._commit(record, offer, engines)
        why = "; ".join(filter(None, [broken, *unstaged.values()]))
        self._group = frozenset()
        for index, error in unstaged.items():
            alone = not broken and len(unstaged) == 1
            if alone or error == NO_ANSWER or engines[index].failures >= ENGINE_ATTEMPTS:
                await self._retire(index, engines[index], f"could not stage version {version}: {error}")
        return self._abandon(version, why, blamed=any(e.gone for e in engines.values()))

    def _abandon(self, version: int, why: str, *, blamed: bool = False) -> bool:
        """To be tried again; PartFailed if no engine was `blamed` too often."""
        log.warning("push of version %d abandoned: %s", version, why)
        self._abandoned = 0 if blamed else self._abandoned + 1
        if self._abandoned >= PUSH_ATTEMPTS:
            raise PartFailed("publisher", f"could not push version {version} {PUSH_ATTEMPTS} times: {why}")
        return True

    async def _staging(self, engine: _Engine) -> str:
        """What went wrong at `engine`; empty if its buffer holds the version."""
        assert engine.staged is not None
        error = await self._within(engine.staged)
        engine.failures = engine.failures + 1 if error else 0
        return NO_ANSWER if error is None else error

    async def _commit(self, record: PushRecord, offer: Offer, engines: dict[int, _Engine]) -> bool:
        version = record.version
        loading = {index: e for index, e in engines.items() if e.committed != version and not e.gone}
        self._loading = loading
        for index in loading:
            await self._notify(index, Commit(version, offer.probe))
        for index, engine in loading.items():
            assert engine.loaded is not None
            reply = await self._within(engine.loaded)
            if reply is None or reply.error:
                await self._retire(index, engine, f"could not load version {version}: {reply and reply.error}")
                continue
            difference = probe_difference(offer.probe_logprobs, reply.probe)
            record.probe_difference = max(record.probe_difference, difference)
            record.pauses.append(reply.pause)
            record.loads.append(reply.load)
            if not difference <= self._tolerance:
                await self._retire(index, engine, f"log-probs differ by {difference:.2g} after version {version}")
                continue
            engine.committed = version
            if reply.checksum:
                record.checksums[index] = reply.checksum
        if any(e.committed == version for e in self._engines.values()):
            self.version = version
            self._committed(record)
        return True

    async def _retire(self, index: int, engine: _Engine, why: str) -> None:
        """Out of service; the actor ends with this reason and whoever watches it starts another."""
        if self._engines.get(index) is not engine:
            return
        log.error("actor %d leaves service: %s", index, why)
        self.engine_left(index)
        await self._notify(index, Stop(f"error: {why}"))

    async def _within(self, future: asyncio.Future[_T]) -> _T | None:
        timer = asyncio.ensure_future(self._clock.sleep(self._timeout))
        either: set[asyncio.Future[Any]] = {future, timer}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
        return future.result() if future.done() else None


def probe_difference(ours: tuple[np.ndarray, ...], theirs: tuple[np.ndarray, ...]) -> float:
    """Largest |difference| of log-probs; infinite when shapes differ or a value is not finite."""
    if len(ours) != len(theirs) or any(a.shape != b.shape for a, b in zip(ours, theirs, strict=True)):
        return float("inf")
    with np.errstate(invalid="ignore"):  # two infinities
        gaps = np.concatenate([np.zeros(1), *(np.abs(a - b) for a, b in zip(ours, theirs, strict=True))])
    return float(gaps.max()) if np.isfinite(gaps).all() else float("inf")
