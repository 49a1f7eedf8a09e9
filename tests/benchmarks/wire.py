"""What answers cost on their way to the intake, and batches on theirs to a trainer, over TCP with CURVE.

    python -m tests.benchmarks.wire [--bursts 5] [--rounds 3] [--json OUT]

Answers have 500 tokens of a vocabulary of 150,000, prompts 200; a group to propose has one answer and six to its task,
a group to solve six; answers are in up to four spans. Bytes are those of the frames and, beside, with what CURVE and
ZMTP add to each (42 bytes at most).

Intake: the intake itself (server, decoding, checks, admission, lease ledger, journal) on the first core of this
process, one actor on the last. It grants a burst of leases, is held until their groups have arrived, so that it hardly
waits for the actor, and takes them in at once. Answers per second of CPU time of its process, from the end of the first
burst to the end of the last with all threads and the decryption, are what one core can do, also where others use it.
Twice: up to the journal, and with batches of 12 groups of each kind, their shares and an fsync for each.

Trainer: CPU time of a process that receives such batches as its share and does nothing else, by token of it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from common import messages as m
from common.clock import SystemClock
from common.config import AlgorithmConfig, Config
from common.keys import Security
from common.learner import LearnerConfig
from common.staleness import StalenessConfig
from common.transport import Client, Expected, Peer, Server
from common.types import Group, Lease, Sample, Share, Span, Task, solve
from common.wire import SCHEMA, encode
from learner.batch import TrainSequence, micro_batch
from learner.intake import Intake
from tests.fakes.groups import a_task

ANSWER, PROMPT, VOCABULARY, SAMPLES = 500, 200, 150_000, 6
FRAMING = 42  # bytes: 9 of ZMTP, 33 of CURVE
BURST = 512  # groups
HOLD = 2.0  # seconds, for a burst to arrive
ROW = 64  # sequences of a share
_LAST = max(os.sched_getaffinity(0))


class Actor:
    """Groups of random tokens and log-probs, drawn before anything is measured."""

    def __init__(self, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._prompts = [rng.integers(0, VOCABULARY, PROMPT, np.int32) for _ in range(32)]
        self._tokens = [rng.integers(0, VOCABULARY, ANSWER, np.int32) for _ in range(256)]
        self._logprobs = [-rng.exponential(1.0, ANSWER).astype(np.float32) for _ in range(256)]
        self._cuts = [sorted(rng.integers(1, ANSWER, int(rng.integers(0, 4))).tolist()) for _ in range(256)]
        self._turn = itertools.count()

    def group(self, lease: Lease) -> Group:
        """What a lease becomes; a proposal is always valid and new."""
        kind, task = lease.kind, None
        samples = [self._sample(solve(kind.task_type), int(kind.proposes)) for _ in range(SAMPLES)]
        if kind.proposes:
            samples.insert(0, self._sample(kind, 0))
            program = "def f(x):\n" + "    x = x + 1\n" * 20 + f"    return x + {lease.id}"
            task = Task(kind.task_type, program, ("1",), ("2",), key=f"{lease.id:032d}", program_key=f"{lease.id:032d}")
        prompts = tuple(self._prompts[next(self._turn) % 32] for _ in range(1 + kind.proposes))
        asked = lease.task.key if lease.task else ""
        references = tuple(t.key for t in lease.references)
        return Group(
            lease.id, lease.attempt, kind, 0, prompts, tuple(samples), task, 0.5, references=references, asked=asked
        )

    def _sample(self, stream: Any, prompt: int) -> Sample:
        turn = next(self._turn)
        edges = [0, *self._cuts[turn % 256], ANSWER]
        spans = tuple(Span(1000 + i, a, b) for i, (a, b) in enumerate(itertools.pairwise(edges)))
        reward = (1.0, -0.5)[turn % 2]
        return Sample(
            stream, prompt, self._tokens[turn % 256], self._logprobs[turn % 256], spans, reward, reward > 0, "ok"
        )

    def share(self) -> Share:
        rows = [TrainSequence(self._prompts[i % 32], self._sample(None, 0), 0.5, 1e-3, 1004) for i in range(ROW)]
        return Share(0, (micro_batch([[row] for row in rows]),))


def bytes_per_token(framing: int) -> float:
    """Of groups to propose and to solve, as many of each as a batch of the paper has."""
    actor, total, tokens = Actor(), 0, 0
    for kind in AlgorithmConfig().streams:
        group = actor.group(Lease(7, 0, kind, 0, 0, SAMPLES))
        frames = encode(1, m.Deliver(group))
        total += sum(map(len, frames)) + framing * len(frames)
        tokens += sum(len(sample.tokens) for sample in group.samples)
    return total / tokens


class Served(Intake):
    """An intake whose actors sample version 0 from the moment they join, and whose batches nobody trains."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.granted, self.taken = asyncio.Event(), asyncio.Event()  # a burst: its leases, all of its groups
        self._missing = 0

    def joined(self, peer: Peer, hello: m.Hello) -> None:
        super().joined(peer, hello)
        self.weights.adopt(peer.index)

    async def handle(self, peer: Peer, message: object) -> object:
        reply = await super().handle(peer, message)
        if isinstance(reply, m.Leases):
            self._missing = len(reply.leases)
            self.granted.set()
        elif isinstance(message, m.Deliver):
            self._missing -= 1
            if not self._missing:
                self.taken.set()
        return reply


class Sharing:
    """Hands the same share to a trainer, as often as it asks."""

    def __init__(self) -> None:
        self._reply = m.ShareReply(Actor().share())

    async def handle(self, peer: Peer, message: Any) -> object:
        return self._reply

    def joined(self, peer: Peer, hello: m.Hello) -> None: ...

    def left(self, peer: Peer, reason: str) -> None: ...


async def intake(groups: int, bursts: int, folder: Path) -> float:
    """Answers per second of CPU time, with batches of `groups` of each kind."""
    config = Config(
        algorithm=AlgorithmConfig(proposals=groups, solves=groups, samples=SAMPLES, solve_samples=SAMPLES),
        staleness=StalenessConfig(eta=-1),
        learner=LearnerConfig(steps=1 << 30),
    )
    tasks = [a_task("seed", t) for t in config.algorithm.task_types]

    async def notify(peer: Peer, message: object) -> None: ...

    served, ends = Served(config, folder, tasks, [], SystemClock(), notify), list[float]()
    async with _served(served, "actor"):
        for _ in range(bursts + 1):  # the first one warms up
            await served.granted.wait()
            served.granted.clear()
            time.sleep(HOLD)  # noqa: ASYNC251 - nothing else is to happen
            await served.taken.wait()
            served.taken.clear()
            ends.append(time.process_time())
    served.close()
    return bursts * BURST * (SAMPLES + 0.5) / (ends[-1] - ends[0])  # half of the kinds have one more


async def shares() -> float:
    """CPU seconds per trained token, as the trainer says."""
    async with _served(Sharing(), "trainer") as child:
        assert child.stdout is not None
        line = await asyncio.to_thread(child.stdout.readline)
        return float(json.loads(line)["cpu_per_token"])


class _served:
    """`handler` over TCP with CURVE, and a child process that is its only peer."""

    def __init__(self, handler: Any, role: str) -> None:
        self._handler, self._role = handler, role

    async def __aenter__(self) -> subprocess.Popen[str]:
        ours, theirs = Security.generate(), Security.generate()
        ours.add(theirs.public)
        expected = Expected("bench", "bench", 0, frozenset({self._role}))
        self._server = Server(
            "tcp://127.0.0.1:0",
            handler=self._handler,
            expected=expected,
            credits=BURST,
            heartbeat=5.0,
            clock=SystemClock(),
            security=ours,
        )
        await self._server.start()
        keys = [theirs.public, theirs.secret, ours.public]
        where = {"address": self._server.address, "keys": keys, "core": _LAST}
        words = [sys.executable, "-m", "tests.benchmarks.wire", "--peer", self._role]
        self._child = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - nobody waits for it
        assert self._child.stdin is not None
        self._child.stdin.write(json.dumps(where, default=bytes.decode) + "\n")
        self._child.stdin.flush()
        return self._child

    async def __aexit__(self, *error: object) -> None:
        self._child.kill()
        self._child.wait()
        await self._server.close()


async def peer(role: str, where: dict[str, Any]) -> None:
    """The child: an actor that delivers for ever, or a trainer that receives, says what that costs, and goes on."""
    public, secret, server = (key.encode() for key in where["keys"])
    hello = m.Hello(SCHEMA, "bench", role, 0, 0, "bench")
    client = Client(where["address"], hello, clock=SystemClock(), security=Security(public, secret, server))
    await client.connect(30.0)
    if role == "trainer":
        print(json.dumps({"cpu_per_token": await _receive(client.request)}), flush=True)
        return
    actor = Actor()
    while True:
        leases = (await client.request(m.WantLeases(BURST))).leases
        burst = [m.Deliver(actor.group(lease)) for lease in leases]
        await asyncio.gather(*(client.request(group) for group in burst))


async def _receive(request: Callable[[object], Awaitable[Any]], batches: int = 200) -> float:
    for number in range(batches + 10):
        if number == 10:
            began = time.process_time()
        reply = await request(m.WantShare(0, number))
    tokens = sum(len(batch.tokens) for batch in reply.share.micro_batches)
    return (time.process_time() - began) / (batches * tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bursts", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="OUT")
    parser.add_argument("--peer", choices=("actor", "trainer"), help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.peer:
        where = json.loads(sys.stdin.readline())
        os.sched_setaffinity(0, {where["core"]})
        asyncio.run(peer(parsed.peer, where))
        return
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # of this process; the child chooses its own
    found: dict[str, list[float]] = {"journal": [], "batches": []}
    received: list[float] = []
    for _ in range(parsed.rounds):
        for name, groups in (("journal", 1 << 20), ("batches", 12)):
            with tempfile.TemporaryDirectory(prefix="azr-bench-") as folder:
                found[name].append(asyncio.run(intake(groups, parsed.bursts, Path(folder))))
        received.append(asyncio.run(shares()))
    told: dict[str, Any] = {
        "bytes_per_token": bytes_per_token(0),
        "bytes_per_token_framed": bytes_per_token(FRAMING),
        "answers_per_cpu_second": found,
        "trainer_cpu_per_token": received,
    }
    print(f"bytes per answer token: {told['bytes_per_token']:.2f}, framed {told['bytes_per_token_framed']:.2f}")
    for name, values in found.items():
        print(
            f"answers per CPU second, {name}: median {statistics.median(values):,.0f}, "
            f"{min(values):,.0f} to {max(values):,.0f}"
        )
    nanoseconds = [1e9 * value for value in received]
    print(
        f"trainer, ns of CPU per token: median {statistics.median(nanoseconds):.1f}, "
        f"{min(nanoseconds):.1f} to {max(nanoseconds):.1f}"
    )
    if parsed.json:
        parsed.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
