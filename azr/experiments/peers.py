"""`azr experiment peers`: how fast our loop trains, against TRL's GRPOTrainer on the same work and the same machine.

Same: base model and dtype, prompts (token for token), answers to a prompt and sequences of a step, length limit and
stop token, temperature, loss (PPO clip on advantages of the group, every token weighs as much), optimiser and its
numbers. The learning rate is next to nothing, so both sample the base model's answers all along and differ in speed
alone. Each system is first tried in several ways and measured in its own fastest; then they take turns.

Not the same, in TRL's favour: a reward is the comparison of two strings there, a sandboxed execution here. In ours:
what it trains is up to `staleness.eta` batches old, which is what makes it asynchronous; TRL's was sampled a moment
ago. The start of neither is in its rate.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from azr import base
from azr.experiments import child, trl
from azr.experiments.cells import TRAIN
from azr.experiments.child import interruptible
from azr.experiments.controls import grammar_tasks
from azr.experiments.peers_report import Found, Round, Trial, write
from azr.experiments.rate import Step, of_run, steady
from azr.guard import guarded
from azr.lock import held
from azr.timeline import load_rows
from common import seed_rows
from common.config import Config, load
from common.errors import ConfigError, PartFailed
from common.types import Task

DEFAULTS = (
    "staleness.eta=4",
    "learner.lr=1e-6",
    "learner.warmup_steps=0",
    "learner.save_every=0",
    "algorithm.solves=8",
    "algorithm.solve_samples=8",
    "logging.view=plain",
    "logging.wandb=disabled",
)
SAME = ("algorithm.proposals=0", "algorithm.baseline=group", "algorithm.stream_weight=tokens", "learner.loss=ppo")
ALONE = ("eval.tasks=0", "eval.harder=0", "model.build=true")
WAYS = tuple(
    (pin, *more)
    for more in ((), ("learner.share_prompts=true", "learner.micro_batch_tokens=1024"))
    for pin in ("cluster.pin=true", "cluster.pin=false")
)
TASKS = 64  # of each type
TRIAL_STEPS, TRIAL_SKIP = 10, 2  # of TRL


@dataclass(frozen=True)
class Plan:
    rounds: int = 3
    steps: int = 60

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ConfigError("--rounds must be at least 1")


@dataclass(frozen=True)
class Ours:
    """`azr train` on the work: a process per run."""

    preset: Path
    settings: tuple[str, ...]
    out: Path
    command: Sequence[str]

    def train(self, way: Sequence[str], name: str) -> list[Step]:
        """PartFailed if the run fails."""
        log = self.out / "logs" / f"{name}.log"
        place = [f"run.folder={self.out / 'runs'}", f"run.name={name}"]
        if code := child.run([*self.command, str(self.preset), *self.settings, *way, *place], log):
            raise PartFailed("azr train", f"ended with exit code {code}: {child.last_line(log)}", log=str(log))
        return of_run(load_rows(self.out / "runs" / name / "metrics.jsonl"))


def peers(
    preset: Path,
    overrides: Sequence[str],
    plan: Plan,
    out: Path,
    *,
    command: Sequence[str] = TRAIN,
    python: Path = trl.PYTHON,
    say: Callable[[str], None] = print,
) -> Found:
    """Measure both and write results.json and table.md into `out`, after the trials and after every round.

    A trial or a round that fails is reported and the others go on. ConfigError before anything is started; PartFailed
    if no trial of a system went well.
    """
    trl.require(python)
    if (out / "runs").exists():
        raise ConfigError(f"{out} holds an experiment: name another --out")
    out = out.absolute()
    settings = (*DEFAULTS, *overrides, f"learner.steps={plan.steps}", *SAME, *ALONE)
    config = load(preset, settings)
    skip = config.staleness.eta + 2
    if config.staleness.eta < 0 or plan.steps <= 2 * skip:
        raise ConfigError(f"--steps must be above {2 * skip}, and staleness.eta 0 or more: the ends are not measured")
    out.mkdir(parents=True, exist_ok=True)
    config = _with_model(config)
    tasks = _tasks(config, out / "tasks.jsonl")
    ours = Ours(preset, (*settings, f"seeds.load={out / 'tasks.jsonl'}"), out, command)
    work = trl.work(config, tasks)
    with held(out), interruptible(), guarded():
        failures: list[str] = []

        def failed(what: str, failure: PartFailed) -> None:
            failures.append(f"{what}: {failure}".replace(f"{out}/", ""))
            say(f"{what} failed: {failure}")

        variant, trials = _fastest_variant(work, out / "trl", python, say, failed)
        way, tried = _fastest_way(ours, skip, say, failed)
        rounds: list[Round] = []
        found = Found(" ".join(way), str(variant), (), (*trials, *tried), tuple(failures))
        table = write(found, out)
        for number in range(1, plan.rounds + 1):
            try:
                mine = steady(ours.train(way, f"round-{number}"), skip)
                (steps,) = trl.train(work, [variant], plan.steps, out / "trl", f"round-{number}", python)
                rounds.append(Round(mine, steady(steps, skip)))
            except PartFailed as failure:
                failed(f"round {number}", failure)
            else:
                say(f"round {number} of {plan.rounds}: {rounds[-1].ratio:.2f} times the trained sequences of TRL")
            found = dataclasses.replace(found, rounds=tuple(rounds), failures=tuple(failures))
            table = write(found, out)
    say(table)
    return found


def _fastest_variant(
    work: trl.Work, folder: Path, python: Path, say: Callable[[str], None], failed: Callable[[str, PartFailed], None]
) -> tuple[trl.Variant, list[Trial]]:
    variants = trl.variants(work.sequences, work.samples)
    rates: dict[trl.Variant, float] = {}
    for processes in sorted({variant.processes for variant in variants}):
        some = [variant for variant in variants if variant.processes == processes]
        try:
            runs = trl.train(work, some, TRIAL_STEPS, folder, f"trial-{processes}", python)
            rates |= {v: steady(steps, TRIAL_SKIP).sequences_per_second for v, steps in zip(some, runs, strict=True)}
        except PartFailed as failure:
            failed(f"trial of TRL in {processes} processes", failure)
    if not rates:
        raise PartFailed("TRL", "no way to run it went well", log=str(folder))
    trials = [Trial("TRL", str(variant), rate) for variant, rate in rates.items()]
    for trial in trials:
        say(f"tried TRL, {trial.way}: {trial.sequences_per_second:.0f} sequences/s")
    return max(rates, key=lambda variant: rates[variant]), trials


def _fastest_way(
    ours: Ours, skip: int, say: Callable[[str], None], failed: Callable[[str, PartFailed], None]
) -> tuple[tuple[str, ...], list[Trial]]:
    rates: dict[tuple[str, ...], float] = {}
    for number, way in enumerate(WAYS, 1):
        try:
            rates[way] = steady(ours.train(way, f"trial-{number}"), skip).sequences_per_second
        except PartFailed as failure:
            failed(f"trial of azr with {' '.join(way)}", failure)
            continue
        say(f"tried azr, {' '.join(way)}: {rates[way]:.0f} sequences/s")
    if not rates:
        raise PartFailed("azr train", "no way to run it went well", log=str(ours.out / "logs"))
    trials = [Trial("azr", " ".join(way), rate) for way, rate in rates.items()]
    return max(rates, key=lambda way: rates[way]), trials


def _with_model(config: Config) -> Config:
    """`config` with the folder of its base model, which is made if it is missing."""
    model = base.located(config.model)
    base.ensure(model)
    return dataclasses.replace(config, model=dataclasses.replace(model, path=str(Path(model.path).absolute())))


def _tasks(config: Config, path: Path) -> list[Task]:
    tasks = grammar_tasks(config, TASKS, random.Random(f"peers {config.run.seed}"))
    seed_rows.write(path, tasks)
    return tasks
