"""One cell of an experiment: a whole run of `azr train` in a process of its own.

A run's folder is named after its cell and the digest of its whole configuration, so a finished run is never made
again and a run of another configuration is never mistaken for it. What else a run depends on, the code and a base
model that was there before, is not in the name.

A run that ended early is continued from its last checkpoint; if that holds all its steps and only the last evaluation
is missing, the run is begun again and the remains are kept beside it. If this process is killed, the guard kills the
run with it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from azr.experiments import child
from azr.experiments.answers import Answers
from common.config import Config, LoggingConfig, RunConfig
from learner.resume_point import latest_checkpoint

TRAIN = (sys.executable, "-m", "azr.cli", "train")


@dataclass(frozen=True)
class Cell:
    """A run to make: `settings` are the whole of what its command line says, and `config` what they come to."""

    name: str
    base: int
    seed: int
    preset: Path
    settings: tuple[str, ...]
    config: Config

    @property
    def run(self) -> str:
        return f"{self.name}-base{self.base}-seed{self.seed}-{digest(self.config)}"

    def __str__(self) -> str:
        return f"{self.name}, base seed {self.base}, RL seed {self.seed}"


@dataclass(frozen=True)
class Outcome:
    """`failure` is empty for a run that finished."""

    cell: Cell
    folder: Path
    failure: str = ""


def digest(config: Config) -> str:
    """Equal exactly for configurations that ask for the same run, wherever it is put and however it is shown."""
    load = Path(config.seeds.load)
    tasks = hashlib.blake2b(load.read_bytes()).hexdigest() if config.seeds.load else ""
    return dataclasses.replace(
        config,
        run=RunConfig(seed=config.run.seed),
        seeds=dataclasses.replace(config.seeds, load=tasks),
        logging=LoggingConfig(),
    ).digest


def perform(cell: Cell, folder: Path, command: Sequence[str] = TRAIN, *, whole: bool = False) -> Outcome:
    """Run `cell` below `folder` unless it is finished there. Everything it prints goes to `folder`/logs.

    `whole`: a run that ended early is begun again, not continued, for its time is what is asked for.
    """
    runs, log = folder / "runs", folder / "logs" / f"{cell.run}.log"
    run = runs / cell.run
    if finished(run, cell.config):
        return Outcome(cell, run)
    if not whole and can_go_on(run, cell.config):
        arguments = [*command, "--resume", str(run)]
    else:
        put_aside(run)
        place = [f"run.folder={runs}", f"run.name={cell.run}"]
        arguments = [*command, str(cell.preset), *cell.settings, *place]
    code = child.run(arguments, log)
    if code == 0 and finished(run, cell.config):
        return Outcome(cell, run)
    ended = f"ended with exit code {code}" if code else "ended well, but without its last version or that one's answers"
    return Outcome(cell, run, f"{ended}: {child.last_line(log)} (log: {log})")


def finished(run: Path, config: Config) -> bool:
    """Whether the run wrote its summary and, if it evaluates, has answers of its first and its last version."""
    summary = run / "summary.json"
    if not summary.exists() or json.loads(summary.read_text())["version"] < config.learner.steps:
        return False
    if not config.eval.tasks and not config.eval.harder:
        return True
    return {0, config.learner.steps} <= {point.version for point in Answers.read(run).points()}


def can_go_on(run: Path, config: Config) -> bool:
    """A run that trained all its steps and then failed cannot: it has nothing left to train."""
    return (run / "config.yaml").exists() and latest_checkpoint(run)[0] < config.learner.steps


def put_aside(run: Path) -> None:
    """Keep the remains of a run that is begun again."""
    if run.exists():
        number = sum(path.name.startswith(f"{run.name}.failed") for path in run.parent.iterdir())
        run.rename(run.with_name(f"{run.name}.failed{number + 1}"))
