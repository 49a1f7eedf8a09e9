"""Runs one after the other on one host, whose cluster has stand-ins for processes. The cores of the process that asks
are looked at in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from azr.check import examine
from azr.guard import guarded
from azr.host import Host, Run
from azr.machine import inspect
from azr.process import Process
from common.config import Config, load
from tests.fakes.cluster import FakeCluster, Handle
from tests.project import ROOT


class Over(FakeCluster):
    """Its runs are over as soon as they begin."""

    def _spawn(self, name: str, cls: type[Process]) -> Handle:
        handle = super()._spawn(name, cls)
        handle.over.set_result(None)
        return handle


def config(*settings: str) -> Config:
    return load(ROOT / "configs" / "tiny.yaml", ["logging.wandb=disabled", "logging.view=plain", *settings])


def test_what_the_first_run_could_use_the_second_one_can() -> None:
    """cluster.cores.ray keeps the driver to a core while a run is made, and the next is looked at by its driver."""
    code = "import asyncio, tests.azr.test_host as t; asyncio.run(t.two_runs())"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


async def two_runs() -> None:
    import tempfile

    usable = sorted(os.sched_getaffinity(0))
    asked = config(f"cluster.cores.ray={usable[-1]}", f"cluster.cores.actor={usable[0]}")
    with tempfile.TemporaryDirectory() as place, guarded() as guard:
        host = Host(guard, Path(place), Watched)
        for name in ("one", "two"):
            assert not [found for found in examine(asked, inspect(Path(place))).errors if "cluster.cores" in found.text]
            folder = Path(place) / name
            folder.mkdir()
            await host.perform(Run(asked, folder))
        await host.stop()
    assert Watched.seen == [{usable[-1]}] * 2
    assert os.sched_getaffinity(0) == set(usable)


class Watched(Over):
    """Tells the cores of the driver while a run is made."""

    seen: list[set[int]] = []  # noqa: RUF012 - of the process that makes the runs

    async def _begin(self) -> None:
        self.seen.append(os.sched_getaffinity(0))
        await super()._begin()
