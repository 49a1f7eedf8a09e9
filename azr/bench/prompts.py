"""What an engine is asked when it is measured alone: prompts of the environment, in the groups of episodes.

Either those that a run asked, in the order of its leases, or those of its first leases, when the task book holds the
identity alone and every proposal is taken for valid.
"""

from __future__ import annotations

from pathlib import Path

from actors.codec import Codec
from actors.triplets import PythonTriplets
from common.config import Config
from common.types import Group, Int32Array, Kind
from learner.journal import Journal

Prompts = list[tuple[Int32Array, int]]  # of a group: a prompt, and how many samples of it; one after the other


def recorded(folder: Path) -> list[Prompts]:
    """Of a run with logging.keep_discarded that is over, its seeds left out: its rates do not count them either."""
    journal = Journal(folder / "journal")
    groups = journal.read().waiting
    journal.close()
    return [_asked(groups[lease]) for lease in sorted(groups) if groups[lease].kind is not Kind.SEED]


def drawn(config: Config) -> list[Prompts]:
    """Of a batch, in the order of its streams."""
    environment, codec, algorithm = PythonTriplets(config.environment), Codec(config.model.path), config.algorithm
    found: list[Prompts] = []
    for task_type in algorithm.task_types:
        task = environment.identity(task_type)
        proposal = codec.encode(environment.propose_prompt(task_type, [task] * config.environment.references))
        question = codec.encode(environment.solve_prompt(task))
        found += [[(proposal, 1), (question, algorithm.samples)]] * algorithm.proposals
        found += [[(question, algorithm.solve_samples)]] * algorithm.solves
    return found


def _asked(group: Group) -> Prompts:
    counts = [sum(sample.prompt == number for sample in group.samples) for number in range(len(group.prompts))]
    return [(prompt, count) for prompt, count in zip(group.prompts, counts, strict=True) if count]
