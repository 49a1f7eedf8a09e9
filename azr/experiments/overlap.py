"""`azr experiment overlap`: what does it bring to generate and to train at the same time, on the cores of this machine?

For each seed three runs back to back: lock-step (η = 0) and overlap (η as configured) with everything else equal, each
role on the cores that cluster.cores names; and beside them, for honesty, lock-step with all cores open: every role may
use all of these cores, and the learner as many threads. That is not the best synchronous use of them: the engine keeps
the threads that it has in the other runs. Every second seed runs them in reverse, against drift of the machine.

Trained sequences a second are counted where a run has found its pace (azr.experiments.pace). Nothing is evaluated or
saved meanwhile. A run that fails is reported, and its pair is in no figure. A seed whose runs are all finished is never
run again; else all of them are, since runs that were made hours apart are no pair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from azr.experiments import overlap_report
from azr.experiments.cells import TRAIN, Cell, Outcome, finished, perform, put_aside
from azr.experiments.child import interruptible
from azr.experiments.files import claimed
from azr.experiments.pace import Pace, measure
from azr.experiments.pairs import CELLS, LOCKSTEP, OVERLAP
from azr.guard import guarded
from azr.lock import held
from common.config import Config, load
from common.cores import CoresConfig, cores
from common.errors import AzrError, ConfigError, PartFailed

DEFAULTS = (
    "eval.tasks=0",
    "eval.harder=0",
    "eval.every=0",
    "learner.save_every=0",
    "logging.view=plain",
    "logging.wandb=disabled",
)


@dataclass(frozen=True)
class Plan:
    """`pairs`: seeds."""

    pairs: int = 3

    def __post_init__(self) -> None:
        if self.pairs < 1:
            raise ConfigError("--pairs must be at least 1")

    def runs(self) -> list[tuple[str, int]]:
        """(cell, seed), in the order in which they are made."""
        return [(name, seed) for seed in range(self.pairs) for name in (CELLS if seed % 2 == 0 else CELLS[::-1])]


def overlap(
    preset: Path,
    overrides: Sequence[str],
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    command: Sequence[str] = TRAIN,
    say: Callable[[str], None] = print,
) -> bool:
    """Make all runs and write the report into `out`; whether all went well. ConfigError before anything is started."""
    out = claimed(out, resume=resume)
    config = _checked(load(preset, [*DEFAULTS, *overrides]))
    cells = [_cell(preset, overrides, config, *run) for run in plan.runs()]
    out.mkdir(parents=True, exist_ok=True)
    outcomes: list[Outcome] = []
    try:
        with held(out), interruptible(), guarded():
            for number, cell in enumerate(cells, 1):
                if (number - 1) % len(CELLS) == 0:
                    _begin_anew(cells[number - 1 : number - 1 + len(CELLS)], out / "runs")
                say(f"[{number}/{len(cells)}] {cell}")
                outcomes.append(perform(cell, out, command, whole=True))
                say(f"        {outcomes[-1].failure or 'done'}: {outcomes[-1].folder}")
    except KeyboardInterrupt:
        say(f"nothing that is finished is lost: go on with --resume --out {out}")
        raise
    runs, failures = _measured(outcomes, warmup(config))
    failures = [failure.replace(f"{out}/", "") for failure in failures]
    say(overlap_report.write(runs, failures, config, out))
    say(f"written: {out}/results.json, runs.csv, table.md, overlap.svg")
    return not failures


def _begin_anew(pair: Sequence[Cell], runs: Path) -> None:
    """Put the runs of one seed aside, unless all are finished."""
    if not all(finished(runs / cell.run, cell.config) for cell in pair):
        for cell in pair:
            put_aside(runs / cell.run)


def warmup(config: Config) -> int:
    """Steps that are cut: a third of those of a lock-step run."""
    return -(-config.learner.steps // 3)


def settings(name: str, config: Config) -> list[str]:
    """What sets the cell `name` apart from `config`.

    The actors of the overlapping run make the last η + 1 batches while its learner is not there yet, so they do not
    count, and it is longer by as many steps.
    """
    if name == OVERLAP:
        return [f"learner.steps={config.learner.steps + config.staleness.eta + 1}"]
    if name == LOCKSTEP:
        return ["staleness.eta=0"]
    every = _every_core(config)
    named = ",".join(map(str, every))
    return [
        "staleness.eta=0",
        f"learner.threads={len(every)}",
        *(f"cluster.cores.{field.name}={named}" for field in fields(CoresConfig)),
    ]


def _cell(preset: Path, overrides: Sequence[str], config: Config, name: str, seed: int) -> Cell:
    whole = [*DEFAULTS, *overrides, *settings(name, config), f"run.seed={seed}"]
    return Cell(name, config.model.base_seed, seed, preset, tuple(whole), load(preset, whole))


def _measured(outcomes: Sequence[Outcome], cut: int) -> tuple[dict[int, dict[str, Pace]], list[str]]:
    """By seed and cell, and what failed or was too short."""
    runs: dict[int, dict[str, Pace]] = {}
    failures = [f"{outcome.cell}: {outcome.failure}" for outcome in outcomes if outcome.failure]
    for outcome in (outcome for outcome in outcomes if not outcome.failure):
        name = outcome.cell.name
        try:
            found = measure(outcome.folder, cut, lockstep=name != OVERLAP)
        except AzrError as failure:
            failures.append(f"{outcome.cell}: {failure.what if isinstance(failure, PartFailed) else failure}")
            continue
        runs.setdefault(outcome.cell.seed, {})[name] = found
    return runs, failures


def _every_core(config: Config) -> list[int]:
    return sorted({core for field in fields(CoresConfig) for core in cores(getattr(config.cluster.cores, field.name))})


def _checked(config: Config) -> Config:
    if config.staleness.eta < 1:
        raise ConfigError("staleness.eta is that of the overlapping runs: at least 1")
    if config.eval.tasks or config.eval.harder or config.learner.save_every:
        raise ConfigError("eval.tasks, eval.harder and learner.save_every are 0 here: neither is part of a step")
    if lacking := [f.name for f in fields(CoresConfig) if not getattr(config.cluster.cores, f.name)]:
        raise ConfigError(f"cluster.cores lacks {', '.join(lacking)}: every role must be bound, the same in all runs")
    if config.run.name or not config.learner.trainers:
        raise ConfigError("run.name is the experiment's to set, and learner.kind=none leaves nothing to overlap")
    return config
