"""The command line: `azr train`, `check`, `base`, `execute`, `report`, `replay`, `bench`, `simulate`, `experiment`.

Only argparse and light modules are imported here; each command imports what it needs when it runs, so `--help` is
quick. An AzrError is an answer to the user, printed without a traceback; anything else is a bug and keeps its own.

Exit codes: 0 done, 1 a part failed or a check found errors, 2 wrong usage or configuration, 130 interrupted,
141 nobody reads the output any more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from azr.arguments import add_settings, run_folder, split
from azr.bench.command import add_bench
from azr.experiments.commands import add_experiments
from azr.shadow import require_own_packages
from common.errors import AzrError, ConfigError

FAILED = 1
MISUSED = 2
INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command line (`sys.argv` by default) and return its exit code."""
    parsed = parse(arguments)
    return run(lambda: int(parsed.command(parsed)))


def run(command: Callable[[], int]) -> int:
    """The exit code of `command`; errors meant for the user are printed to stderr."""
    try:
        require_own_packages()
        return command()
    except KeyboardInterrupt:
        print("azr: interrupted", file=sys.stderr)
        return INTERRUPTED
    except AzrError as error:
        print(f"azr: {error}", file=sys.stderr)
        return MISUSED if isinstance(error, ConfigError) else FAILED


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse, allowing `key=value` overrides before, between and after options. Exits with code 2 on wrong usage."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    strays = [word for word in rest if word.startswith("-") or "=" not in word]
    if strays or (rest and "settings" not in parsed):
        parser.error(f"unrecognized arguments: {' '.join(strays or rest)}")
    if "settings" in parsed:
        parsed.settings += rest
    return parsed


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="azr",
        description="Absolute Zero, asynchronously: a language model that teaches itself to reason with no data.",
        epilog="azr COMMAND --help tells more about one command.",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    train = commands.add_parser(
        "train",
        help="train a model by self-play",
        description="Train as CONFIG says; the run folder is runs/NAME. With --resume, the run's own "
        "config.yaml is used.",
    )
    add_settings(train)
    train.add_argument("--resume", metavar="RUN", help="continue a run: its folder, or its name in runs/")
    train.set_defaults(command=_train)

    check = commands.add_parser(
        "check",
        help="show what a run would start and whether it fits this machine",
        description="Print the resolved configuration, the processes of the run with their memory, and what is "
        "missing or does not fit. Starts nothing.",
    )
    add_settings(check)
    check.set_defaults(command=_check)

    base = commands.add_parser(
        "base",
        help="make the tiny base model",
        description="Train a tiny model from nothing on self-made text and write it as a Hugging Face folder.",
    )
    base.add_argument("--out", metavar="DIR", type=Path, help="default: where a run with this base model looks for it")
    base.add_argument("--steps", metavar="N", type=int, help="training steps (default: those of a run)")
    base.add_argument("--seed", metavar="N", type=int, default=0, help="default: %(default)s")
    base.set_defaults(command=_base)

    execute = commands.add_parser(
        "execute",
        help="run untrusted programs on their inputs in the sandbox",
        description="Run each program of ROWS.jsonl (- is standard input) on its inputs and print one JSON row of "
        "outputs each, in the same order. docs/executor.md tells the format and what is guaranteed.",
    )
    execute.add_argument(
        "settings",
        nargs="*",
        metavar="ROWS.jsonl [executor.KEY=VALUE ...]",
        help="""lines {"id": ..., "code": ..., "inputs": [...]}, then single settings such as executor.cpu_limit=1""",
    )
    execute.add_argument("--jobs", metavar="N", type=int, help="shards side by side (default: one per usable core)")
    execute.add_argument("--no-policy", action="store_true", help="no rules for programs, only the sandbox")
    instead = execute.add_mutually_exclusive_group()
    instead.add_argument("--check", action="store_true", help="compare with the outputs in the rows")
    instead.add_argument("--self-test", action="store_true", help="show what the sandbox refuses, and run nothing")
    instead.add_argument("--bench", action="store_true", help="measure the executor with the programs of the rows")
    execute.add_argument("--executions", metavar="N", type=int, help="with --bench: run so many, look for leaks")
    execute.add_argument("--json", metavar="OUT", type=Path, help="with --bench: write the figures there, too")
    execute.set_defaults(command=_execute)

    report = commands.add_parser(
        "report",
        help="where the time of a run went, and what its learner waited for",
        description="Print, for a run that goes on or is over, the share of time of every process in each state, the "
        "critical path of its learner steps, and the use of GPUs. Ends with 1 if states do not sum to wall time.",
    )
    report.add_argument("run", metavar="RUN", help="its folder, or its name in runs/")
    report.set_defaults(command=_report)

    replay = commands.add_parser(
        "replay",
        help="train the batches of a run again and compare every figure bit by bit",
        description="Reproduce the learner's losses of a run that is over, on the CPU, from its journal. Ends with 1 "
        "if a figure differs. With settings of learner, algorithm or intrinsic it shows what the same batches would "
        "have given. The run folder stays as it is.",
    )
    replay.add_argument("run", metavar="RUN", help="its folder, or its name in runs/")
    replay.add_argument("settings", nargs="*", metavar="key=value", help="for instance learner.loss=cispo")
    replay.set_defaults(command=_replay)

    add_bench(commands)

    simulation = commands.add_parser(
        "simulate",
        help="how a run would go with more actors, in virtual time",
        description="Run the intake of CONFIG (tiny.yaml, or that of --from) in virtual time, with actors, executor "
        "and trainer that cost time and do no work: costs.KEY=VALUE, see docs/simulation.md. Prints a table and writes "
        "simulation.json and simulation.svg.",
    )
    add_settings(simulation)
    simulation.add_argument("--from", dest="run", metavar="RUN", help="take costs and configuration of a real run")
    simulation.add_argument("--actors", metavar="N,...", help="default: engine.actors of CONFIG")
    simulation.add_argument(
        "--out", metavar="DIR", type=Path, default=Path("runs/simulation"), help="default: %(default)s"
    )
    simulation.set_defaults(command=_simulate)

    experiment = commands.add_parser("experiment", help="answer a question with many runs, seeds and intervals")
    add_experiments(experiment.add_subparsers(title="experiments", metavar="EXPERIMENT", required=True))
    return parser


def _train(parsed: argparse.Namespace) -> int:
    from common.config import load

    run = run_folder(parsed.resume) if parsed.resume else None
    path, overrides = split(parsed, fallback=run / "config.yaml" if run else None)
    if run and path != run / "config.yaml":
        raise ConfigError(f"a resumed run keeps its own configuration: leave out {path}; key=value settings are fine")
    config = load(path, overrides)

    from azr.train import train

    train(config, run)
    return 0


def _check(parsed: argparse.Namespace) -> int:
    from azr.check import examine, report
    from azr.machine import inspect
    from common.config import load

    path, overrides = split(parsed)
    config = load(path, overrides)
    result = examine(config, inspect(Path(config.run.folder)))
    print(report(result))
    return FAILED if result.errors else 0


def _base(parsed: argparse.Namespace) -> int:
    if parsed.steps is not None and parsed.steps < 1:
        raise ConfigError("--steps must be at least 1")
    from azr import base
    from common.config import ModelConfig

    steps = ModelConfig.base_steps if parsed.steps is None else parsed.steps
    model = ModelConfig(build=True, base_steps=steps, base_seed=parsed.seed)
    path = parsed.out or Path(base.located(model).path)
    if path.exists():
        raise ConfigError(f"{path} exists: remove it to make the base model again, or name another folder with --out")
    base.build(path, steps=steps, seed=parsed.seed)
    return 0


def _execute(parsed: argparse.Namespace) -> int:
    settings = [word for word in parsed.settings if word.startswith("executor.") and "=" in word]
    files = [word for word in parsed.settings if word not in settings]
    if len(files) != (0 if parsed.self_test else 1):
        wanted = "--self-test reads no file" if parsed.self_test else "name one file of rows, or - for standard input"
        raise ConfigError(f"{wanted}; not {' and '.join(files) or 'none'}; settings are written executor.KEY=VALUE")
    if not parsed.bench and (parsed.executions is not None or parsed.json is not None):
        raise ConfigError("--executions and --json belong to --bench")
    if (parsed.bench or parsed.self_test) and (parsed.jobs is not None or parsed.no_policy):
        raise ConfigError("--jobs and --no-policy are for running rows, not for --bench or --self-test")
    for name, number in (("--jobs", parsed.jobs), ("--executions", parsed.executions)):
        if number is not None and number < 1:
            raise ConfigError(f"{name} must be at least 1")
    from common.config import load

    config = load(os.devnull, settings).executor  # the defaults: what a run's preset says is not of interest here
    if parsed.self_test:
        from azr.selftest import selftest

        return selftest(config)
    from azr.rows import read

    rows = read(files[0], outputs=parsed.check)
    if parsed.bench:
        from azr.bench.executor.measure import bench

        return bench(rows, config, executions=parsed.executions or 0, out=parsed.json)
    from azr.execute import execute
    from azr.machine import inspect

    jobs = parsed.jobs or inspect().cores
    return execute(rows, config, shards=jobs, policy=not parsed.no_policy, check=parsed.check)


def _report(parsed: argparse.Namespace) -> int:
    from azr.report import report

    text, sound = report(run_folder(parsed.run))
    print(text)
    return 0 if sound else FAILED


def _replay(parsed: argparse.Namespace) -> int:
    from azr.replay import replay

    return 0 if replay(run_folder(parsed.run), parsed.settings) else FAILED


def _simulate(parsed: argparse.Namespace) -> int:
    costs = [word.removeprefix("costs.") for word in parsed.settings if word.startswith("costs.")]
    parsed.settings = [word for word in parsed.settings if not word.startswith("costs.")]
    run = run_folder(parsed.run) if parsed.run else None
    path, overrides = split(parsed, fallback=run / "config.yaml" if run else Path("tiny.yaml"))
    from azr.simulation.sweep import prepared, sweep
    from common.config import load

    config = load(path, overrides)
    try:
        actors = [int(count) for count in parsed.actors.split(",")] if parsed.actors else [config.engine.actors]
    except ValueError:
        raise ConfigError(f"--actors={parsed.actors}: write numbers, separated by commas") from None
    sweep(config, prepared(config, costs, run), actors, parsed.out, run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
