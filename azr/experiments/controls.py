"""The cells of the learning experiment: Absolute Zero itself, and controls that each take one thing away.

    azr               as configured
    shuffled          rewards are dealt anew at random: what any training on own samples does
    frozen-proposer   proposals are made and judged, only answers are trained
    grammar           no proposals; tasks from the grammar that the base model's text was made with
    seeds-only        no proposals; as many tasks, proposed once by the base model before training

Cells without proposals ask more book tasks instead, so that as many sequences are trained per batch as where every
proposal is valid: more than in `azr`, by the answers to proposals that are not. The report counts them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from azr.base import grammar
from azr.base.grammar import Program
from azr.base.text import Mix
from common import seed_rows
from common.config import Config
from common.types import TASK_TYPES, Task, TaskType

AZR, SHUFFLED = "azr", "shuffled"


def settings(cell: str, config: Config, folder: Path) -> list[str]:
    """What sets `cell` apart from `config`. Writes the tasks that it needs into `folder`."""
    return _CELLS[cell](config, folder)


def _shuffled(config: Config, folder: Path) -> list[str]:
    return ["algorithm.shuffle_rewards=true"]


def _frozen(config: Config, folder: Path) -> list[str]:
    return ["algorithm.train_propose=false"]


def _grammar(config: Config, folder: Path) -> list[str]:
    count = proposed(config)
    path = folder / f"grammar-{count}-seed{config.run.seed}.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    seed_rows.write(path, grammar_tasks(config, count, random.Random(f"grammar control {config.run.seed}")))
    return [*_without_proposals(config), f"seeds.load={path.absolute()}"]


def _seeds_only(config: Config, folder: Path) -> list[str]:
    count = proposed(config)
    return [*_without_proposals(config), f"seeds.tasks={count}", f"seeds.tries={max(8 * count, config.seeds.tries)}"]


_CELLS: dict[str, Callable[[Config, Path], list[str]]] = {
    AZR: lambda config, folder: [],
    SHUFFLED: _shuffled,
    "frozen-proposer": _frozen,
    "grammar": _grammar,
    "seeds-only": _seeds_only,
}
CELLS = tuple(_CELLS)


def proposed(config: Config) -> int:
    """Proposals per type in a whole run."""
    return config.learner.steps * config.algorithm.proposals


def _without_proposals(config: Config) -> list[str]:
    algorithm = config.algorithm
    sequences = algorithm.proposals * (1 + algorithm.train_mc) + algorithm.solves * algorithm.solve_samples
    return ["algorithm.proposals=0", f"algorithm.solves={-(-sequences // algorithm.solve_samples)}"]


def grammar_tasks(config: Config, per_type: int, rng: random.Random) -> list[Task]:
    """Tasks on distinct programs that are not held out and not degenerate, of the lengths in the base model's text;
    without keys."""
    mix = Mix()
    tasks: list[Task] = []
    for task_type in TASK_TYPES:
        lengths = mix.induced_lengths if task_type is TaskType.INDUCTION else mix.lengths
        programs: set[str] = set()
        while len(programs) < per_type:
            program = grammar.draw(rng, held_out=False, lengths=lengths)
            if program.text not in programs:
                programs.add(program.text)
                tasks.append(_task(config, task_type, program, rng))
    return tasks


def _task(config: Config, task_type: TaskType, program: Program, rng: random.Random) -> Task:
    induction = task_type is TaskType.INDUCTION
    values = rng.sample(grammar.DIGITS, config.environment.inputs if induction else 1)
    inputs, outputs = tuple(map(str, values)), tuple(str(program.output(value)) for value in values)
    shown = config.environment.shown if induction else 0
    return Task(task_type, program.text, inputs, outputs, key="", shown=shown)
