"""A real shard, started once per test module: every program in it meets the same processes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from common.config import ExecutorConfig
from executor.shard import Shard

CONFIG = ExecutorConfig(cpu_limit=0.2, wall_limit=5.0, memory_mb=128, output_limit=4096)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shard() -> AsyncIterator[Shard]:
    shard = Shard(CONFIG)
    await shard.start()
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
async def open_shard() -> AsyncIterator[Shard]:
    """Without policy: only the sandbox stands between a program and the machine. Remembers nothing."""
    shard = Shard(dataclasses.replace(CONFIG, cache=0), policy=False)
    await shard.start()
    yield shard
    await shard.close()
