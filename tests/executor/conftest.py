"""A real shard, started once per test module: every program in it meets the same processes."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from common.config import ExecutorConfig
from executor.shard import Shard

CONFIG = ExecutorConfig(cpu_limit=0.2, wall_limit=5.0, memory_mb=128, output_limit=4096)


def require_forkloop() -> None:
    """Skip without a C compiler; with one, a loop that was not built is a failure."""
    if importlib.util.find_spec("executor._forkloop") is None:
        assert shutil.which("cc") is None, "executor/forkloop.c was not built: run scripts/setup and see what it says"
        pytest.skip("no C compiler, so no executor/forkloop.c")


@pytest.fixture(scope="module", params=[True, False], ids=["loop in C", "loop in Python"])
def native(request: pytest.FixtureRequest) -> bool:
    """Whether the fork servers run executor/forkloop.c."""
    wanted: bool = request.param
    if wanted:
        require_forkloop()
    return wanted


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shard(native: bool) -> AsyncIterator[Shard]:
    shard = Shard(CONFIG, native=native)
    await shard.start()
    assert {process.native for side in shard.sides for process in side.processes} == {native}
    yield shard
    await shard.close()


@pytest.fixture(scope="session")
def shared() -> Path:
    """Evidence that is not part of the repository."""
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("AZR_SHARED", root.parent / "shared"))
    if not folder.is_dir():
        pytest.skip(f"no folder {folder.name} beside the repository, and AZR_SHARED names none")
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def open_shard(native: bool) -> AsyncIterator[Shard]:
    """Without policy: only the sandbox stands between a program and the machine. Remembers nothing."""
    shard = Shard(dataclasses.replace(CONFIG, cache=0), policy=False, native=native)
    await shard.start()
    yield shard
    await shard.close()
