"""One simulated run: the intake as it is (admission, leases, book, journal, batches, pushes), all others simulated.

Equal arguments give equal outcomes. The intake itself takes no virtual time, and the wire none either: where one intake
is the limit (docs/simulation.md has its cost of a group), a simulation does not show it.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import tempfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from azr.simulation.costs import RAMP, Costs
from azr.simulation.parts import Executor, SimulatedActor, SimulatedTrainer
from azr.simulation.virtual_time import VirtualClock, run
from common.config import Config, IntrinsicConfig
from common.errors import ConfigError, PartFailed
from common.seeds import derive
from common.transport import Peer
from common.types import Task
from learner.intake import Intake

PATIENCE = 50_000.0  # virtual seconds without a learner step after which a run counts as stuck


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rates and staleness are of what was trained after the first third of the steps; shares are of the whole run."""

    actors: int
    seconds: float
    sequences_per_second: float
    staleness: Mapping[int, int]  # tokens by it
    trainer: Mapping[str, float]  # share of time by state
    actor: Mapping[str, float]  # the mean of all actors
    executor: float  # share of time that a shard is busy
    dropped: float  # share of leases that came to nothing

    @property
    def mean_staleness(self) -> float:
        return sum(age * n for age, n in self.staleness.items()) / max(1, sum(self.staleness.values()))

    def quantile(self, share: float) -> int:
        """The least staleness that `share` of the tokens do not exceed."""
        left = share * sum(self.staleness.values())
        for age in sorted(self.staleness):
            left -= self.staleness[age]
            if left <= 0:
                return age
        return max(self.staleness, default=0)


def simulate(config: Config, costs: Costs) -> Outcome:
    """`config`: of the run; evaluation, seeds and intrinsic rewards, which cost no time here, are left out.

    Raises ConfigError if the number of sequences that an engine decodes at a time is left open.
    """
    if not config.engine.max_num_seqs:
        raise ConfigError("engine.max_num_seqs=0 is decided when a run starts: simulate the number that azr check says")
    config = dataclasses.replace(
        config,
        intrinsic=IntrinsicConfig(),
        seeds=dataclasses.replace(config.seeds, tasks=0, load=""),
        eval=dataclasses.replace(config.eval, tasks=0, harder=0),
        logging=dataclasses.replace(config.logging, keep_journal=False),
    )
    with tempfile.TemporaryDirectory(prefix="azr-simulation-") as folder:
        return run(Simulation(config, costs, Path(folder)).outcome())


class Simulation:
    """`folder` takes the files of the intake."""

    def __init__(self, config: Config, costs: Costs, folder: Path) -> None:
        self._config, self._costs, self._folder = config, costs, folder
        self._actors: dict[int, SimulatedActor] = {}
        self._past: Counter[str] = Counter()  # seconds by state of the actors that died

    async def outcome(self) -> Outcome:
        config, costs = self._config, self._costs
        types = config.algorithm.task_types
        identity = [Task(t, "identity", ("1",), ("1",), f"{t}:identity", program_key="identity") for t in types]
        self._intake = Intake(config, self._folder, identity, [], VirtualClock(), self._notify)
        self._executor = Executor(config.executor.shards, costs.job)
        trainer = SimulatedTrainer(config, costs, self._intake)
        publisher = asyncio.create_task(trainer.publish())
        actors = [asyncio.create_task(self._keep_alive(index)) for index in range(config.engine.actors)]
        training = asyncio.create_task(trainer.train())
        intake = asyncio.create_task(self._intake.run())
        watch = asyncio.create_task(_watch(trainer))
        parts = [publisher, training, intake, watch, *actors]
        try:
            while not (intake.done() and training.done()):
                pending = [part for part in parts if not part.done()]
                done, _ = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    part.result()
        finally:
            for task in parts:
                task.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
        return self._told(trainer)

    async def _notify(self, peer: Peer, message: object) -> None:
        if peer.index in self._actors:
            self._actors[peer.index].notice(message)

    async def _keep_alive(self, index: int) -> None:
        """An actor that dies is there again after a while, as a new process."""
        costs, rng = self._costs, random.Random(derive(self._config.run.seed, "deaths", index))
        while True:
            actor = SimulatedActor(index, self._config, costs, self._intake, self._executor)
            self._actors[index] = actor
            age = rng.expovariate(1.0 / costs.failure) if costs.failure else None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(actor.live(), age)
                return
            del self._actors[index]
            self._intake.left(Peer("actor", index), "died")
            actor.ledger.enter("dead")
            await asyncio.sleep(costs.restart)
            self._past.update(actor.ledger.drain()[0])

    def _told(self, trainer: SimulatedTrainer) -> Outcome:
        config, admission = self._config, self._intake.admission
        seconds = asyncio.get_running_loop().time()
        first, last = trainer.steps[len(trainer.steps) // RAMP], trainer.steps[-1]
        ages = Counter(last[2])
        ages.subtract(first[2])
        ends = {key: n for key, n in admission.counts.items() if key.startswith("ended/")}
        ended = sum(ends.values())
        for actor in self._actors.values():
            self._past.update(actor.ledger.drain()[0])
        outcome = Outcome(
            config.engine.actors,
            seconds,
            (last[1] - first[1]) / max(last[0] - first[0], 1e-9),
            {age: n for age, n in sorted(ages.items()) if n > 0},
            _shares(trainer.ledger.drain()[0]),
            _shares(self._past),
            self._executor.busy / (config.executor.shards * seconds),
            (ended - ends.get("ended/trained", 0)) / max(ended, 1),
        )
        self._intake.close()
        return outcome


async def _watch(trainer: SimulatedTrainer) -> None:
    """Raises PartFailed when nothing is trained any more; looks for silent leases alone keep time going."""
    seen = -1
    while len(trainer.steps) > seen:
        seen = len(trainer.steps)
        await asyncio.sleep(PATIENCE)
    raise PartFailed("simulation", f"no learner step in {PATIENCE:.0f} simulated seconds after {seen} of them")


def _shares(seconds: Mapping[str, float]) -> dict[str, float]:
    total = sum(seconds.values())
    return {state: spent / total for state, spent in sorted(seconds.items())} if total else {}
