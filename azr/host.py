"""Where runs are made, one after the other: a Ray with its processes, the terminal's view, and the end of it all.

A run finds the engines and sandboxes of the one before it if both ask for the same ones. After a run that failed
nothing is kept, so that the next begins with new processes.

Invariant: once `stop` has returned, and however the block of `hosting` is left, no process of any run is left.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr.cluster import Cluster
from azr.core_placement import keep_to
from azr.guard import Guard, guarded
from azr.tracking import Tracking
from azr.view import View, table
from azr.wiring import Network
from common.config import Config
from common.errors import PartFailed
from common.keys import private_folder

VIEW_INTERVAL = 1.0  # seconds


@dataclass(frozen=True)
class Run:
    """A run to make. `start`: (step, checkpoint) to continue from; None: it is new."""

    config: Config
    folder: Path
    start: tuple[int, Path | None] | None = None


@contextmanager
def hosting() -> Iterator[Host]:
    sockets = private_folder()
    try:
        with guarded() as guard:
            yield Host(guard, sockets)
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


class Host:
    """`sockets`: private folder of ipc sockets."""

    def __init__(self, guard: Guard, sockets: Path, made: type[Cluster] = Cluster) -> None:
        self._guard, self._sockets, self._made = guard, sockets, made
        self._cores = os.sched_getaffinity(0)  # a cluster keeps this process to those of Ray, while a run is made
        self._cluster: Cluster | None = None

    async def perform(self, run: Run) -> dict[str, Any]:
        """Make `run` and return its summary. Raises PartFailed."""
        logging.basicConfig(filename=run.folder / "driver.log", level=logging.INFO, force=True)
        if self._cluster is not None and (run.start is not None or not self._cluster.fits(run.config)):
            await self.stop()
        try:
            with View(run.config, run.folder) as view, Tracking(run.config, run.folder) as tracking:
                try:
                    summary = await self._perform(run, view, tracking)
                except BaseException:
                    await self.stop()
                    raise
        finally:
            keep_to(sorted(self._cores))  # what the next run asks for is compared with them
        print(table(summary, run.folder))
        return summary

    async def stop(self) -> None:
        """End every process."""
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.stop()

    async def _perform(self, run: Run, view: View, tracking: Tracking) -> dict[str, Any]:
        from ray.exceptions import RayError

        try:
            cluster = await self._started(run, view)
            return await self._watched(cluster, run, view, tracking)
        except RayError as error:
            raise PartFailed("ray", str(error).splitlines()[0], log=str(run.folder / "logs")) from error

    async def _started(self, run: Run, view: View) -> Cluster:
        network, cluster = self._network(run), self._cluster
        if cluster is None:
            made = self._made(run.config, network, run.folder, run.start, self._guard.remember, usable=self._cores)
            cluster = self._cluster = made
            await cluster.start(view.progress)
        else:
            await cluster.change(run.config, network, run.folder, view.progress)
        self._guard.remember()  # Ray's helpers come up behind its start
        return cluster

    async def _watched(self, cluster: Cluster, run: Run, view: View, tracking: Tracking) -> dict[str, Any]:
        from ray.exceptions import RayError

        summary: dict[str, Any] | None = None
        watching = asyncio.create_task(_watch(cluster, view, tracking))
        try:
            await cluster.supervise(view.progress)
        finally:
            watching.cancel()
            with suppress(TimeoutError, RayError):
                summary = await cluster.summary()
        if summary is None:
            raise PartFailed("intake", "gave no summary", log=str(run.folder / "logs" / "intake.log"))
        return summary

    def _network(self, run: Run) -> Network:
        cluster = run.config.cluster
        remote = bool(cluster.address) or cluster.transport == "tcp"
        return Network(run.folder.name, run.config, None if remote and cluster.transport != "ipc" else self._sockets)


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


def cancel_on_signals() -> None:
    """An interrupt or SIGTERM cancels the present task."""
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
