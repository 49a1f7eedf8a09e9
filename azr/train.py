"""`azr train`: one run from its configuration to its summary.

A run is a folder: config.yaml, metrics.jsonl, summary.json, trace.json, tasks.sqlite, journal/, checkpoints/, logs/,
wandb/. Resuming starts a new incarnation in the same folder, from its newest durable checkpoint.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import shutil
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from azr import base
from azr.check import examine
from azr.guard import Guard, guarded
from azr.lock import held
from azr.machine import inspect
from azr.tracking import Tracking
from azr.view import View, table
from azr.wiring import Network
from common import seed_rows
from common.config import Config, SeedsConfig, to_yaml
from common.errors import ConfigError, PartFailed
from common.keys import private_folder

VIEW_INTERVAL = 1.0  # seconds


def train(config: Config, resume: Path | None = None) -> dict[str, Any]:
    """Run to the end and return the summary. Raises AzrError; KeyboardInterrupt when interrupted."""
    config = dataclasses.replace(
        config,
        model=dataclasses.replace(config.model, path=_absolute(config.model.path)),
        seeds=dataclasses.replace(config.seeds, load=_absolute(config.seeds.load), save=_absolute(config.seeds.save)),
    )
    _require_seed_files(config.seeds)
    config = _require_fit(config)
    folder, config, start = _continue(resume, config) if resume else _begin(config)
    with held(folder):
        return _train(config, folder, start)


def _train(config: Config, folder: Path, start: tuple[int, Path | None] | None) -> dict[str, Any]:
    (folder / "config.yaml").write_text(to_yaml(config))
    logging.basicConfig(filename=folder / "driver.log", level=logging.INFO, force=True)
    remote = bool(config.cluster.address) or config.cluster.transport == "tcp"
    sockets = None if remote and config.cluster.transport != "ipc" else private_folder()
    network = Network(folder.name, config, sockets)
    try:
        with guarded() as guard:
            return asyncio.run(_run(config, network, folder, start, guard))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        if sockets is not None:
            shutil.rmtree(sockets, ignore_errors=True)


async def _run(
    config: Config, network: Network, folder: Path, start: tuple[int, Path | None] | None, guard: Guard
) -> dict[str, Any]:
    from ray.exceptions import RayError

    from azr.cluster import Cluster

    _cancel_on_signals()
    cluster = Cluster(config, network, folder, start, guard.remember)
    summary: dict[str, Any] | None = None
    with View(config, folder) as view, Tracking(config, folder) as tracking:
        try:
            await cluster.start(view.progress)
            guard.remember()  # Ray's helpers come up behind its start
            watching = asyncio.create_task(_watch(cluster, view, tracking))
            try:
                await cluster.supervise(view.progress)
            except RayError as error:
                raise PartFailed("ray", str(error).splitlines()[0], log=str(folder / "logs")) from error
            finally:
                watching.cancel()
                if "intake" in cluster.parts:
                    with suppress(TimeoutError, RayError):
                        summary = await cluster.summary()
        finally:
            await cluster.stop()
    if summary is None:
        raise PartFailed("intake", "gave no summary", log=str(folder / "logs" / "intake.log"))
    print(table(summary, folder))
    return summary


async def _watch(cluster: Any, view: View, tracking: Tracking) -> None:
    limit = cluster.config.cluster.watchdog
    while True:
        asked = asyncio.ensure_future(cluster.status())
        done, _ = await asyncio.wait({asked}, timeout=limit or None)
        if not done:
            view.progress(f"the intake has not answered for {limit:.0f} s; its log: logs/intake.log")
        view.show(await asked)
        tracking.catch_up()
        await asyncio.sleep(VIEW_INTERVAL)


def _cancel_on_signals() -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)


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
    """`config` with a model folder that exists: the tiny base model is made if it is asked for and missing.

    ConfigError with all that stands in the way.
    """
    result = examine(config, inspect(Path(config.run.folder)))
    if result.errors:
        raise ConfigError("this configuration cannot run here\n" + "\n".join(map(str, result.errors)))
    model = result.config.model
    if model.build and not Path(model.path).exists():
        base.build(Path(model.path), steps=model.base_steps, seed=model.base_seed)
    return dataclasses.replace(config, model=dataclasses.replace(model, build=False))
