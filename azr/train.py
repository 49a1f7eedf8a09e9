"""`azr train`: one run from its configuration to its summary.

A run is a folder: config.yaml, metrics.jsonl, summary.json, trace.json, tasks.sqlite, journal/, checkpoints/, logs/,
wandb/. Resuming starts a new incarnation in the same folder, from its newest durable checkpoint.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from azr import base
from azr.check import examine
from azr.host import Host, Run, cancel_on_signals, hosting
from azr.lock import held
from azr.machine import inspect
from common import seed_rows
from common.config import Config, SeedsConfig, to_yaml
from common.errors import ConfigError


def train(config: Config, resume: Path | None = None) -> dict[str, Any]:
    """Run to the end and return the summary. Raises AzrError; KeyboardInterrupt when interrupted."""
    with prepared(config, resume) as run, hosting() as host:
        try:
            return asyncio.run(_alone(host, run))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


async def _alone(host: Host, run: Run) -> dict[str, Any]:
    cancel_on_signals()
    try:
        return await host.perform(run)
    finally:
        await host.stop()


@contextmanager
def prepared(config: Config, resume: Path | None = None) -> Iterator[Run]:
    """A run whose folder is made, holds its configuration, and is this process's. Raises ConfigError."""
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, path=_absolute(config.model.path)),
        seeds=dataclasses.replace(config.seeds, load=_absolute(config.seeds.load), save=_absolute(config.seeds.save)),
    )
    _require_seed_files(config.seeds)
    config = _require_fit(config)
    folder, config, start = _continue(resume, config) if resume else _begin(config)
    with held(folder):
        (folder / "config.yaml").write_text(to_yaml(config))
        yield Run(config, folder, start)


def _begin(config: Config) -> tuple[Path, Config, None]:
    name = config.run.name or time.strftime("%Y%m%d-%H%M%S")
    folder = Path(config.run.folder).absolute() / name
    if (folder / "config.yaml").exists():
        raise ConfigError(f"run {folder} exists: choose another run.name, or continue it with --resume {name}")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return folder, config, None


def _continue(resume: Path, config: Config) -> tuple[Path, Config, tuple[int, Path | None]]:
    """Before its first checkpoint a run goes on from the base model, with the seeds that its book holds."""
    from learner.resume_point import latest_checkpoint

    if not config.learner.trainers:
        raise ConfigError(f"{resume} has no learner (learner.kind=none) and so no checkpoint: begin another run")
    folder = resume.absolute()
    step, checkpoint = latest_checkpoint(folder)
    if step >= config.learner.steps:
        raise ConfigError(f"{folder} has trained its {step} steps; to go on, add learner.steps={2 * step} or more")
    run = dataclasses.replace(config.run, incarnation=config.run.incarnation + 1)
    return folder, dataclasses.replace(config, run=run), (step, checkpoint)


def _absolute(path: str) -> str:
    return str(Path(path).absolute()) if path else ""


def _require_seed_files(seeds: SeedsConfig) -> None:
    """ConfigError before anything starts, for what would fail when the seeds are read or written."""
    if seeds.load:
        seed_rows.read(Path(seeds.load))
    if seeds.save and not Path(seeds.save).parent.is_dir():
        raise ConfigError(f"seeds.save={seeds.save}: there is no folder {Path(seeds.save).parent}")


def _require_fit(config: Config) -> Config:
    """`config` with a model folder that exists (the tiny base model is made if it is asked for and missing), and a
    number of sequences that an engine decodes at a time.

    ConfigError with all that stands in the way.
    """
    result = examine(config, inspect(Path(config.run.folder)))
    if result.errors:
        raise ConfigError("this configuration cannot run here\n" + "\n".join(map(str, result.errors)))
    model = result.config.model
    base.ensure(model)
    return dataclasses.replace(config, model=dataclasses.replace(model, build=False), engine=result.config.engine)
