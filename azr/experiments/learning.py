"""`azr experiment learning`: does self-play teach, how much of it is due to what, and how sure is that?

Runs of Absolute Zero over base seeds and RL seeds, and controls (azr.experiments.controls) at the same budget on the
first base; held-out accuracy before, during and after, on tasks like those trained on and on harder ones; and what
the base model can do if its thought is begun for it, which needs no training. One run at a time: a run fills the
machine.

A run that fails is reported and the others go on. What is finished is never run again (azr.experiments.cells).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from azr.experiments import report, table
from azr.experiments.cells import TRAIN, Cell, Outcome, perform
from azr.experiments.child import interruptible
from azr.experiments.controls import AZR, CELLS, settings
from azr.experiments.files import claimed
from azr.guard import guarded
from azr.lock import held
from common.config import Config, load
from common.errors import ConfigError

DEFAULTS = (
    "eval.tasks=200",
    "eval.harder=200",
    "eval.forced=true",
    "eval.every=20",
    "logging.view=plain",
    "logging.wandb=disabled",
)


@dataclass(frozen=True)
class Plan:
    """How many runs of what. `steps` and `control_seeds` None: as the preset says, and as many as `seeds`."""

    seeds: int = 3
    bases: int = 2
    control_seeds: int | None = None
    steps: int | None = None
    only: tuple[str, ...] = CELLS

    def __post_init__(self) -> None:
        for name in ("seeds", "bases", "control_seeds", "steps"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ConfigError(f"--{name.replace('_', '-')} must be at least 1")
        if unknown := [name for name in self.only if name not in CELLS]:
            raise ConfigError(f"--only knows {', '.join(CELLS)}; not {', '.join(unknown)}")

    def runs(self) -> Iterator[tuple[str, int, int]]:
        """(cell, base seed, RL seed), in the order in which they are made."""
        for name in (name for name in CELLS if name in self.only):
            bases = self.bases if name == AZR else 1
            seeds = self.seeds if name == AZR or self.control_seeds is None else self.control_seeds
            yield from ((name, base, seed) for base in range(bases) for seed in range(seeds))


def learning(
    preset: Path,
    overrides: Sequence[str],
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    command: Sequence[str] = TRAIN,
    say: Callable[[str], None] = print,
) -> bool:
    """Make all runs and write the report into `out`; whether all went well. ConfigError before anything is started.

    `overrides` of a person are stronger than DEFAULTS, and what makes a cell what it is stronger than both.
    """
    out = claimed(out, resume=resume)
    cells = [_cell(preset, overrides, plan, out, *run) for run in plan.runs()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with held(out), interruptible(), guarded():
            outcomes = [_perform(cell, number, len(cells), out, command, say) for number, cell in enumerate(cells, 1)]
    except KeyboardInterrupt:
        say(f"nothing that is finished is lost: go on with --resume --out {out}")
        raise
    found = report.make(outcomes, cells[0].config.learner.steps)
    report.write(found, out)
    say(table.markdown(found))
    say(f"written: {out}/results.json, table.md, learning.svg, proposals.svg")
    return not found.failed


def _perform(
    cell: Cell, number: int, count: int, out: Path, command: Sequence[str], say: Callable[[str], None]
) -> Outcome:
    say(f"[{number}/{count}] {cell}")
    outcome = perform(cell, out, command)
    say(f"        {'failed: ' + outcome.failure if outcome.failure else f'done: {outcome.folder}'}")
    return outcome


def _cell(preset: Path, overrides: Sequence[str], plan: Plan, out: Path, name: str, base: int, seed: int) -> Cell:
    steps = [] if plan.steps is None else [f"learner.steps={plan.steps}"]
    seeds = [f"model.base_seed={base}", f"run.seed={seed}"]
    common = [*DEFAULTS, *overrides, *steps, "model.build=true", *seeds]
    own = settings(name, _checked(load(preset, common)), out / "tasks")
    return Cell(name, base, seed, preset, (*common, *own), load(preset, [*common, *own]))


def _checked(config: Config) -> Config:
    if not config.eval.tasks:
        raise ConfigError("eval.tasks=0 leaves nothing to compare")
    if config.run.name or config.seeds.load:
        raise ConfigError("run.name and seeds.load are the experiment's to set")
    if Path(config.model.path).exists():
        path = config.model.path
        raise ConfigError(f"{path} exists and would stand for the base of every seed: set model.path to a new name")
    return config
