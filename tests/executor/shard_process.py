"""An executor shard as a run starts it, without Ray, until it is killed or its parent is gone.

python -m tests.executor.shard_process PART FOLDER SETTINGS: socket and log of PART in FOLDER, SETTINGS as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
from pathlib import Path

from azr.processes import ShardProcess
from azr.wiring import Network
from common.config import Config, ExecutorConfig


def network(folder: Path, settings: str) -> Network:
    """Equal arguments make processes that talk to each other."""
    return Network("kills", Config(executor=ExecutorConfig(**json.loads(settings))), folder)


async def main(part: str, folder: Path, settings: str) -> None:
    process = ShardProcess(part, network(folder, settings), folder, (), folder / f"{part}.log")
    await process.start()
    await process.run()


def leave_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


if __name__ == "__main__":
    threading.Thread(target=leave_with_parent, daemon=True).start()
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3]))
