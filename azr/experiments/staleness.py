"""`azr experiment staleness`: what do samples of older weights cost, and which loss bears them?

Runs over η, losses, KV policies and RL seeds from one base, all else equal. Staleness is exact unless the settings say
otherwise: every batch is sampled η versions before it is trained, so η is what differs between two runs, and not the
speeds of the moment. All runs share one Ray, one set of engines and sandboxes; each has its own learner, intake and
task book.

A run that fails is reported and the others go on. What is finished is never run again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from azr.experiments import staleness_report as report
from azr.experiments.cells import Cell, Outcome
from azr.experiments.files import claimed
from azr.experiments.series import perform_all
from azr.experiments.staleness_figures import Setting
from azr.lock import held
from common.config import Config, load
from common.errors import ConfigError
from common.off_policy import LOSSES

DEFAULTS = (
    "staleness.mode=exact",
    "eval.tasks=200",
    "eval.harder=0",
    "eval.every=20",
    "logging.view=plain",
    "logging.wandb=disabled",
)
POLICIES = ("recompute", "keep", "salt")

Performs = Callable[[Sequence[Cell], Path, Callable[[str], None]], list[Outcome]]


class Loss(NamedTuple):
    """A loss, and how many optimiser steps it makes of a batch."""

    name: str
    minibatches: int = 1

    @classmethod
    def parse(cls, text: str) -> Loss:
        """NAME or NAME:MINIBATCHES."""
        name, _, number = text.partition(":")
        if name not in LOSSES or not (number or "1").isdigit():
            raise ConfigError(f"--losses knows {', '.join(LOSSES)}, each alone or as NAME:MINIBATCHES; not {text}")
        return cls(name, int(number or 1))

    def __str__(self) -> str:
        return self.name if self.minibatches == 1 else f"{self.name}:{self.minibatches}"


@dataclass(frozen=True)
class Plan:
    """Which runs to make. `kv` empty: the policy of the preset; `steps` None: as the preset says."""

    etas: tuple[int, ...] = (0, 4, 16)
    losses: tuple[Loss, ...] = (Loss("reinforce"), Loss("ppo"), Loss("decoupled", 4))
    kv: tuple[str, ...] = ()
    seeds: int = 3
    steps: int | None = None

    def __post_init__(self) -> None:
        if self.seeds < 1 or (self.steps is not None and self.steps < 1):
            raise ConfigError("--seeds and --steps must be at least 1")
        if not self.etas or min(self.etas) < 0:
            raise ConfigError("--etas must be 0 or more")
        if unknown := [policy for policy in self.kv if policy not in POLICIES]:
            raise ConfigError(f"--kv knows {', '.join(POLICIES)}; not {', '.join(unknown)}")
        for option, values in (("--etas", self.etas), ("--losses", self.losses), ("--kv", self.kv)):
            if twice := [str(value) for value, count in Counter(values).items() if count > 1]:
                raise ConfigError(f"{option}: {', '.join(twice)} more than once; more runs of a setting are --seeds")

    def runs(self) -> Iterator[tuple[Setting, int]]:
        """(setting, RL seed): seeds after each other, so that an unfinished sweep has all settings; but a KV policy
        belongs to its engine, so all runs of one come first."""
        for policy in self.kv or ("",):
            for seed in range(self.seeds):
                yield from ((Setting(str(loss), eta, policy), seed) for loss in self.losses for eta in self.etas)


def staleness(
    preset: Path,
    overrides: Sequence[str],
    plan: Plan,
    out: Path,
    *,
    resume: bool = False,
    perform: Performs = perform_all,
    say: Callable[[str], None] = print,
) -> bool:
    """Make all runs and write the report into `out`; whether all went well. ConfigError before anything is started.

    `overrides` of a person are stronger than DEFAULTS, and what makes a cell what it is stronger than both.
    """
    out = claimed(out, resume=resume)
    made = [(setting, _cell(preset, overrides, plan, setting, seed)) for setting, seed in plan.runs()]
    out.mkdir(parents=True, exist_ok=True)
    try:
        with held(out):
            outcomes = perform([cell for _, cell in made], out, say)
    except KeyboardInterrupt:
        say(f"nothing that is finished is lost: go on with --resume --out {out}")
        raise
    settings = [setting for setting, _ in made]
    found = report.make(list(zip(settings, outcomes, strict=True)), made[0][1].config)
    say(report.write(found, out))
    return not found.failed


def _cell(preset: Path, overrides: Sequence[str], plan: Plan, setting: Setting, seed: int) -> Cell:
    loss = Loss.parse(setting.loss)
    own = [
        *([] if plan.steps is None else [f"learner.steps={plan.steps}"]),
        *([f"engine.kv={setting.kv}"] if setting.kv else []),
        f"run.seed={seed}",
        f"staleness.eta={setting.eta}",
        f"learner.loss={loss.name}",
        f"learner.minibatches={loss.minibatches}",
    ]
    settings = (*DEFAULTS, *overrides, *own)
    config = load(preset, settings)
    _check(config, plan)
    name = "-".join(filter(None, (loss.name, f"x{loss.minibatches}", f"eta{setting.eta}", setting.kv)))
    return Cell(name, config.model.base_seed, seed, preset, settings, config)


def _check(config: Config, plan: Plan) -> None:
    if not config.eval.tasks:
        raise ConfigError("eval.tasks=0 leaves nothing to compare")
    if config.run.name or config.seeds.load:
        raise ConfigError("run.name and seeds.load are the experiment's to set")
    if len(plan.kv) > 1 and config.staleness.mode == "exact":
        raise ConfigError("--kv: with exact staleness no request runs at a push; add staleness.mode=natural")
