"""What a group costs in admission, by number of actors: grants, heartbeats, deliveries, batches, versions.

    python -m tests.benchmarks.admission [--actors 10 100 1000] [--groups 100000] [--rounds 5]

Two figures in microseconds of CPU time: admission alone, and with the lease desk, where actors wait as long polls.
Rounds of all sizes alternate, and the least of each counts. Batches are alike for all, large enough for 1,000 actors.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections import deque
from pathlib import Path

from common.config import Config, EvalConfig
from common.types import STREAMS, Group, Kind, Lease
from learner.admission import Admission, Limits
from learner.evaluation import Evaluation
from learner.lease_desk import LeaseDesk
from learner.lease_ledger import LeaseLedger
from learner.leases import LeaseMaker, kind_of
from learner.seeding import Seeding
from learner.task_book import TaskBook
from tests.fakes.clock import FakeClock
from tests.fakes.groups import a_group, a_sample

STREAM_QUOTA = dict.fromkeys(STREAMS[:6], 400)
ETA, CAPACITY, NEVER = 2, 2, 1 << 40
SAMPLES = {kind: a_sample(kind) for kind in Kind if kind in STREAM_QUOTA}


def _lease(number: int, version: int) -> Lease:
    return Lease(number, 0, kind_of(number), version, seed=number, samples=1)


class House:
    """A learner that trains at once: the version follows as soon as a batch is formed."""

    def __init__(self) -> None:
        limits = Limits(ETA, NEVER, 120.0, NEVER)
        self.admission = Admission(STREAM_QUOTA, limits, FakeClock(), _lease, lambda end: None)

    def deliver(self, lease: Lease) -> bool:
        """Whether a version has come of it."""
        group = _group(lease)
        self.admission.deliver(group)
        if (batch := self.admission.form()) is None:
            return False
        self.admission.trained(self.admission.version, batch)
        self.admission.advance(self.admission.version + 1)
        return True


def _group(lease: Lease) -> Group:
    return a_group(lease.id, lease.kind, [SAMPLES[lease.kind]], attempt=lease.attempt)


def alone(actors: int, groups: int) -> float:
    """Seconds of CPU per group. Each actor in turn delivers its oldest lease, renews the others and asks for one."""
    house = House()
    admission = house.admission
    held = [deque(admission.grant(actor, CAPACITY)) for actor in range(actors)]
    began = time.process_time()
    for turn in range(groups):
        actor = turn % actors
        mine = held[actor]
        if mine:
            house.deliver(mine.popleft())
        admission.renew(actor, [lease.id for lease in mine])
        mine.extend(admission.grant(actor, CAPACITY - len(mine)))
        if turn % 1000 == 0:
            admission.expire()
    return (time.process_time() - began) / groups


async def at_the_desk(actors: int, groups: int) -> float:
    """Seconds of CPU per group. More is asked for than is to be had, so that most actors wait."""
    house, config = House(), Config()
    book, ledger = TaskBook(Path(":memory:"), [], config), LeaseLedger(Path(":memory:"), 0)
    evaluation, seeding = Evaluation([], EvalConfig(), NEVER), Seeding(config, book)
    maker = LeaseMaker(config, book)
    desk = LeaseDesk(house.admission, evaluation, seeding, maker, ledger, lambda actor: True, 1.0)
    delivered = 0

    async def act(actor: int) -> None:
        nonlocal delivered
        while leases := await desk.ask(actor, CAPACITY):
            await asyncio.sleep(0)
            for lease in leases:
                delivered += 1
                if house.deliver(lease):
                    desk.version_changed()
                desk.serve()
            if delivered >= groups:
                desk.close()

    began = time.process_time()
    await asyncio.gather(*(act(actor) for actor in range(actors)))
    used = time.process_time() - began
    ledger.close()
    book.close()
    return used / delivered


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--actors", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--groups", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    parsed = parser.parse_args()
    costs: dict[int, list[tuple[float, float]]] = {actors: [] for actors in parsed.actors}
    for _ in range(parsed.rounds):
        for actors, found in costs.items():
            found.append((alone(actors, parsed.groups), asyncio.run(at_the_desk(actors, parsed.groups))))
    best = {actors: [1e6 * min(column) for column in zip(*found, strict=True)] for actors, found in costs.items()}
    print("actors  admission µs  (relative)  with the desk µs  (relative)")
    first = best[parsed.actors[0]]
    for actors, (bare, desk) in best.items():
        print(f"{actors:6}  {bare:12.1f}  {bare / first[0]:10.2f}  {desk:16.1f}  {desk / first[1]:10.2f}")


if __name__ == "__main__":
    main()
