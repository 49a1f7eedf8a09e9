"""`azr bench CONFIG`: where the time goes, part by part, on the machine that it runs on.

Each part is measured in a process of its own, so that none meets another's memory, threads or failure, and parts take
turns: a round measures each once, and the repeats of a figure lie a round apart, so that a machine whose speed drifts
treats all alike. A part that fails is told with its reason, measured no more, and makes the exit code 1. Results are
written after every part.

Not guaranteed: that a machine with other work gives the same figures twice; the least and the most tell.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from azr import base
from azr.bench import part
from azr.bench.result import FILES, Result
from azr.bench.setting import setting
from azr.experiments import child
from azr.experiments.child import interruptible
from azr.guard import guarded
from azr.lock import held
from common.config import Config, load, to_yaml
from common.errors import ConfigError

DEFAULTS = ("learner.steps=20", "logging.view=plain", "logging.wandb=disabled")
QUICK = (
    "learner.steps=4",
    "seeds.tasks=0",
    "algorithm.proposals=4",
    "algorithm.solves=2",
    "algorithm.samples=3",
    "algorithm.solve_samples=3",
    "algorithm.train_mc=3",
)
FEWEST = 4  # steps of a run, below which no pace is left of it


@dataclass(frozen=True)
class Plan:
    """`only`: parts to measure, all by default."""

    repeats: int = 3
    only: tuple[str, ...] = tuple(part.PARTS)
    quick: bool = False

    def __post_init__(self) -> None:
        if self.repeats < 1:
            raise ConfigError("--repeats must be at least 1")
        unknown = [name for name in self.only if name not in part.PARTS]
        if unknown or not self.only:
            raise ConfigError(f"--only names {', '.join(part.PARTS)}; not {', '.join(unknown) or 'nothing'}")


def bench(
    preset: Path,
    overrides: Sequence[str],
    plan: Plan,
    out: Path | None,
    *,
    command: Sequence[str] = (sys.executable, "-m", "azr.bench.part"),
    say: Callable[[str], None] = print,
) -> bool:
    """Measure and write FILES into `out`; whether all parts went well. ConfigError before anything is started."""
    settings = [*DEFAULTS, *(QUICK if plan.quick else ()), *overrides]
    config = load(preset, settings)
    if config.learner.steps < FEWEST:
        raise ConfigError(f"learner.steps must be at least {FEWEST}: the ends of a run are not measured")
    out = (out or Path(config.run.folder, time.strftime("bench-%Y%m%d-%H%M%S"))).absolute()
    if (out / FILES[0]).exists():
        raise ConfigError(f"{out} holds a measurement: name another --out")
    out.mkdir(parents=True, exist_ok=True)
    with held(out), interruptible(), guarded():
        say(f"results, after every part: {out}/{', '.join(FILES)}")
        config = _with_model(config)
        (out / "config.yaml").write_text(to_yaml(config), encoding="utf-8")
        result = Result(setting(), dataclasses.asdict(config), [str(preset), *settings])
        for number in range(plan.repeats):
            result.rounds.append([])
            for name in (name for name in part.PARTS if name in plan.only and name not in result.failed):
                say(f"[{number + 1}/{plan.repeats}] {name}")
                log = out / "logs" / f"{name}-{number}.log"
                words = [name, str(out), str(number), *(["--quick"] if plan.quick else [])]
                if child.run([*command, *words], log):
                    result.failed[name] = child.last_line(log).removeprefix("azr: ")
                    say(f"        {result.failed[name]} (log: {log})")
                else:
                    result.rounds[-1] += part.read(out / f"{name}-{number}")
                result.write(out)
    say(result.text())
    return not result.failed


def _with_model(config: Config) -> Config:
    """`config` with the folder of its model, which is made if it is a tiny base model and missing."""
    model = base.located(config.model)
    base.ensure(model)
    path = str(Path(model.path).absolute())
    return dataclasses.replace(config, model=dataclasses.replace(model, path=path, build=False))
