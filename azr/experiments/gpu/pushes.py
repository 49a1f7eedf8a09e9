"""Weight pushes between two processes: a real engine here, a learner there, and between them what a run has.

`python -m azr.experiments.gpu.pushes SPEC.json` starts the engine once and then, for each way to push, a learner
(azr/experiments/gpu/sender.py) that pushes VERSIONS versions into it while it answers requests. WeightSync, Publisher,
Receiver and the wire are those of a run; only leases and training are left out. Results are written after each way.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from azr.experiments.gpu import children, crossed
from azr.experiments.gpu.crossed import Crossed
from common import messages as m
from common.clock import SystemClock
from common.errors import PartFailed, WeightTransferFailed
from common.types import Share

if TYPE_CHECKING:
    from actors.engine import Engine
    from common.config import Config
    from common.transport import Peer
    from learner.weight_sync import PushRecord

VERSIONS = 4
RUN, INTAKE = "check", "intake"
PUSH_SECONDS = 60.0  # of each phase of a push
WAY_SECONDS = 240.0  # of all pushes of a way, the start of the learner included


@dataclass(frozen=True)
class Way:
    """How to push: `transport` as in common/weights.py, and whether only what changed travels."""

    transport: str
    delta: bool

    def __str__(self) -> str:
        return self.transport + (" delta" if self.delta else "")


WAYS = (Way("gloo", False), Way("gloo", True), Way("ipc", False), Way("nccl", False), Way("nccl", True))


@dataclass
class Desk:
    """The intake's part in pushes: it hands out versions one at a time, each when the one before is in service.

    When the last one is, the answers into which pushes fell are written to `seams`.
    """

    engine: Engine
    tolerance: float
    answers: list[Crossed]
    seams: Path
    pushes: list[PushRecord] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    _work: set[asyncio.Task[None]] = field(default_factory=set)

    def __post_init__(self) -> None:
        from learner.weight_sync import WeightSync

        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._served = asyncio.Condition()
        self.sync = WeightSync(
            self._notify,
            self.pushes.append,
            SystemClock(),
            held=lambda: False,
            tolerance=self.tolerance,
            timeout=PUSH_SECONDS,
        )
        self.sync.engine_joined(0)

    async def handle(self, peer: Peer, message: Any) -> object:
        match message:
            case m.WantPush():
                return await self.sync.want_push()
            case m.Offer():
                return self.sync.offer(message)
            case m.Published():
                return self.sync.published(message)
            case m.WantShare(_, step):
                self.sync.step_ready(step)
                async with self._served:
                    await self._served.wait_for(lambda: len(self.digests) > step)
                if step < VERSIONS:
                    return m.ShareReply(Share(step, ()), save=False)
                self.sync.stop()
                crossed.write(self.seams, self.answers)
                return m.ShareReply(None, save=False)
            case _:
                return m.Ack()

    def joined(self, peer: Peer, hello: m.Hello) -> None: ...

    def left(self, peer: Peer, reason: str) -> None: ...

    async def _notify(self, index: int, message: object) -> None:
        match message:
            case m.Stage():
                self._spawn(self._stage(message))
            case m.Commit():
                self._spawn(self._commit(message))
            case m.Stop(reason):
                self._fail(PartFailed("push", reason))

    async def _stage(self, stage: m.Stage) -> None:
        error = ""
        try:
            await self.engine.stage(stage)
        except WeightTransferFailed as failure:
            error = str(failure)
        self.sync.staged(0, m.Staged(stage.epoch, stage.version, error))

    async def _commit(self, commit: m.Commit) -> None:
        times = await self.engine.commit(commit.version)
        probe = await self.engine.score(commit.probe)
        digest = await self.engine.checksum()
        self.sync.committed(0, m.Committed(commit.version, probe, times.pause, times.load, digest))
        async with self._served:
            self.digests.append(digest)
            self._served.notify_all()

    def _spawn(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.over.done():
            self.over.set_exception(error)


def main(spec: Path) -> int:
    from azr.experiments.gpu.settings import PRESET
    from common.config import load

    asked = json.loads(spec.read_text())
    config = load(PRESET, asked["settings"])
    from actors.engine import environment

    os.environ.update(environment(config.engine.threads))
    asyncio.run(_all(config, [Way(*way) for way in asked["ways"]], spec, asked["requests"], asked["device"]))
    return 0


async def _all(config: Config, ways: Sequence[Way], spec: Path, requests: int, device: str) -> None:
    from actors.engine import create

    engine = create(config.engine, config.model)
    await engine.start()
    found: dict[str, Any] = {}
    for way in ways:
        answers: list[Crossed] = []
        answering = asyncio.create_task(_answer(engine, config, requests, answers))
        try:
            found[str(way)] = await _way(engine, config, way, spec, device, answers)
        except (PartFailed, TimeoutError) as error:
            found[str(way)] = {"failed": f"{type(error).__name__}: {error}"}
        answering.cancel()
        with suppress(asyncio.CancelledError):
            await answering
        (spec.parent / "pushes.json").write_text(json.dumps(found))
        if "failed" in found[str(way)]:
            break  # an engine that left service holds nobody knows what
        await engine.reset()
    await engine.close()


async def _way(
    engine: Engine, config: Config, way: Way, spec: Path, device: str, answers: list[Crossed]
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="azr-") as sockets:
        return await _pushed(engine, config, way, spec, device, answers, Path(sockets))


async def _pushed(
    engine: Engine, config: Config, way: Way, spec: Path, device: str, answers: list[Crossed], sockets: Path
) -> dict[str, Any]:
    """What one way of pushing cost and gave."""
    from azr.wiring import Network

    network = Network(RUN, config, sockets)
    out = spec.parent / f"learner-{str(way).replace(' ', '-')}.json"
    seams = out.with_suffix(".seams.json")
    desk = Desk(engine, config.learner.probe_tolerance, answers, seams)
    server = network.server(network.bind_address(INTAKE), desk, {"trainer"}, 8, None)
    await server.start()
    serving, pushing = asyncio.create_task(server.serve_forever()), asyncio.create_task(desk.sync.run())
    words = [str(spec), server.address, str(sockets), way.transport, str(int(way.delta)), str(seams), str(out)]
    command, log = [sys.executable, "-m", "azr.experiments.gpu.sender", *words], out.with_suffix(".log")
    learner = children.start(command, log, children.environment(device))
    ended = asyncio.create_task(asyncio.to_thread(learner.wait))
    parts: set[asyncio.Future[Any]] = {serving, pushing, ended, desk.over}
    try:
        done, _ = await asyncio.wait(parts, timeout=WAY_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        for part in done:
            part.result()
        if ended not in done or learner.returncode:
            raise PartFailed("learner", f"{'has not ended' if not done else 'failed'}: {children.end_of(log)}")
    finally:
        children.end(learner)
        await asyncio.gather(ended, return_exceptions=True)
        for task in (serving, pushing):
            task.cancel()
        await asyncio.gather(serving, pushing, return_exceptions=True)
        await server.close()
    return {
        **json.loads(out.read_text()),
        "digests": desk.digests,
        "pushes": [dataclasses.asdict(push) for push in desk.pushes],
    }


async def _answer(engine: Engine, config: Config, requests: int, answers: list[Crossed]) -> None:
    """Keep the engine busy until cancelled, and note the answers into which a push fell."""

    async def one(number: int) -> None:
        prompt = np.random.default_rng(number).integers(3, 400, 64).astype(np.int32)
        longest = config.engine.max_tokens
        while True:
            (answer,) = await engine.generate(prompt, n=1, temperature=1.0, seed=number, max_tokens=longest)
            crossed.note(answers, prompt, answer)

    await asyncio.gather(*(one(number) for number in range(requests)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
