"""The command line: `azr train`, `azr check`, `azr base`.

Only argparse and light modules are imported here; each command imports what it needs when it runs, so `--help` is
quick. An AzrError is an answer to the user, printed without a traceback; anything else is a bug and keeps its own.

Exit codes: 0 done, 1 a part failed or a check found errors, 2 wrong usage or configuration, 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

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
    _add_settings(train)
    train.add_argument("--resume", metavar="RUN", help="continue a run: its folder, or its name in runs/")
    train.set_defaults(command=_train)

    check = commands.add_parser(
        "check",
        help="show what a run would start and whether it fits this machine",
        description="Print the resolved configuration, the processes of the run with their memory, and what is "
        "missing or does not fit. Starts nothing.",
    )
    _add_settings(check)
    check.set_defaults(command=_check)

    base = commands.add_parser(
        "base",
        help="make the tiny base model",
        description="Train a tiny model from nothing on self-made text and write it as a Hugging Face folder.",
    )
    base.add_argument("--out", metavar="FOLDER", type=Path, default=Path("models/tiny"), help="default: %(default)s")
    base.add_argument("--steps", metavar="N", type=int, default=4000, help="training steps (default: %(default)s)")
    base.add_argument("--seed", metavar="N", type=int, default=0, help="default: %(default)s")
    base.set_defaults(command=_base)
    return parser


def _add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="CONFIG [key=value ...]",
        help="a YAML file or the name of a preset in configs/, then single settings such as learner.steps=10",
    )


def _split(parsed: argparse.Namespace, *, fallback: Path | None = None) -> tuple[Path, list[str]]:
    files = [word for word in parsed.settings if "=" not in word]
    overrides = [word for word in parsed.settings if "=" in word]
    if len(files) > 1:
        raise ConfigError(f"one configuration at a time, not {' and '.join(files)}; write settings as key=value")
    if not files and fallback is None:
        raise ConfigError("which configuration? Name a YAML file, for instance configs/tiny.yaml")
    return Path(files[0]) if files else fallback or Path(), overrides


def _train(parsed: argparse.Namespace) -> int:
    from common.config import load

    run = _run_folder(parsed.resume) if parsed.resume else None
    path, overrides = _split(parsed, fallback=run / "config.yaml" if run else None)
    if run and path != run / "config.yaml":
        raise ConfigError(f"a resumed run keeps its own configuration: leave out {path}; key=value settings are fine")
    config = load(path, overrides)

    from azr.train import train

    train(config, run)
    return 0


def _run_folder(run: str) -> Path:
    for folder in (Path(run), Path("runs") / run):
        if (folder / "config.yaml").exists():
            return folder
    raise ConfigError(f"no run to resume at {run}: neither {run} nor runs/{run} has a config.yaml")


def _check(parsed: argparse.Namespace) -> int:
    from azr.check import examine, report
    from azr.machine import inspect
    from common.config import load

    path, overrides = _split(parsed)
    config = load(path, overrides)
    result = examine(config, inspect(Path(config.run.folder)))
    print(report(result))
    return FAILED if result.errors else 0


def _base(parsed: argparse.Namespace) -> int:
    if parsed.steps < 1:
        raise ConfigError("--steps must be at least 1")
    if parsed.out.exists():
        raise ConfigError(f"{parsed.out} exists: remove it to make the base model again, or name another --out")

    from azr.base import build

    build(parsed.out, steps=parsed.steps, seed=parsed.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
