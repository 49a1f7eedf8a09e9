"""How commands take a configuration: CONFIG key=value words, run folders, where experiments put results. Light."""

from __future__ import annotations

import argparse
from pathlib import Path

from common.errors import ConfigError


def add_settings(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "settings",
        nargs="*",
        metavar="CONFIG [key=value ...]",
        help="a YAML file or the name of a preset in configs/, then single settings such as learner.steps=10",
    )


def add_place(parser: argparse.ArgumentParser, folder: str) -> None:
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path(folder), help="default: %(default)s")
    parser.add_argument("--resume", action="store_true", help="finish what is in DIR; finished runs are kept")


def split(parsed: argparse.Namespace, *, fallback: Path | None = None) -> tuple[Path, list[str]]:
    files = [word for word in parsed.settings if "=" not in word]
    overrides = [word for word in parsed.settings if "=" in word]
    if len(files) > 1:
        raise ConfigError(f"one configuration at a time, not {' and '.join(files)}; write settings as key=value")
    if not files and fallback is None:
        raise ConfigError("which configuration? Name a YAML file, for instance configs/tiny.yaml")
    return Path(files[0]) if files else fallback or Path(), overrides


def run_folder(run: str) -> Path:
    for folder in (Path(run), Path("runs") / run):
        if (folder / "config.yaml").exists():
            return folder
    raise ConfigError(f"no run at {run}: neither {run} nor runs/{run} has a config.yaml")
