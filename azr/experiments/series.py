"""Runs of an experiment one after the other in this process, on one host: later runs find Ray, engines and sandboxes.

A run that fails is an outcome and the others go on, with new processes. What is finished is never run again, and a run
that was interrupted is continued (azr.experiments.cells). What a run prints goes to its log.

Base models that are missing are built before the first run: inside the event loop an interrupt would have to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from azr import base
from azr.check import examine
from azr.experiments.cells import Cell, Outcome, can_go_on, finished, put_aside
from azr.host import Run, cancel_on_signals, hosting
from azr.machine import inspect
from azr.train import prepared
from common.config import Config, ModelConfig, RunConfig, load
from common.errors import AzrError


def perform_all(cells: Sequence[Cell], folder: Path, say: Callable[[str], None]) -> list[Outcome]:
    """In this order, below `folder`. KeyboardInterrupt when interrupted, with no process left."""
    for model in models(cells, folder):
        base.ensure(model, say)
    with hosting() as host:
        try:
            return asyncio.run(Series(host, folder, say).perform(cells))
        except asyncio.CancelledError:
            raise KeyboardInterrupt from None


def models(cells: Sequence[Cell], folder: Path) -> list[ModelConfig]:
    """What the runs that are to be made start from, each once. A run that cannot be made here says so itself."""
    wanted = [cell.config for cell in cells if not finished(folder / "runs" / cell.run, cell.config)]
    examined = [examine(config, inspect(folder)) for config in wanted]
    return list(dict.fromkeys(found.config.model for found in examined if not found.errors))


class Performer(Protocol):
    """What makes the runs (azr.host.Host)."""

    async def perform(self, run: Run) -> dict[str, Any]: ...

    async def stop(self) -> None: ...


@dataclass(frozen=True)
class Series:
    host: Performer
    folder: Path
    say: Callable[[str], None]
    prepare: Callable[[Config, Path | None], AbstractContextManager[Run]] = prepared

    async def perform(self, cells: Sequence[Cell]) -> list[Outcome]:
        cancel_on_signals()
        outcomes = []
        try:
            for number, cell in enumerate(cells, 1):
                self.say(f"[{number}/{len(cells)}] {cell}")
                began = time.monotonic()
                outcome = await self._outcome(cell)
                ended = f"failed: {outcome.failure}" if outcome.failure else f"done: {outcome.folder}"
                self.say(f"        {ended} ({time.monotonic() - began:.0f} s)")
                outcomes.append(outcome)
        finally:
            await self.host.stop()
        return outcomes

    async def _outcome(self, cell: Cell) -> Outcome:
        run, log = self.folder / "runs" / cell.run, self.folder / "logs" / f"{cell.run}.log"
        if finished(run, cell.config):
            return Outcome(cell, run)
        log.parent.mkdir(parents=True, exist_ok=True)
        try:
            with log.open("a") as output, redirect_stdout(output):
                await self._make(cell, run)
        except AzrError as error:
            return Outcome(cell, run, f"{error} (log: {log})")
        if finished(run, cell.config):
            return Outcome(cell, run)
        return Outcome(cell, run, f"ended well, but did not evaluate its last version (log: {log})")

    async def _make(self, cell: Cell, run: Path) -> None:
        place = RunConfig(run.name, str(run.parent), cell.config.run.seed)
        config, resume = replace(cell.config, run=place), None
        if can_go_on(run, cell.config):
            config, resume = load(run / "config.yaml"), run
        else:
            put_aside(run)
        with self.prepare(config, resume) as made:
            await self.host.perform(made)
