"""The other process of a push that is measured (azr/bench/push.py): it receives bytes, or holds the engine.

What it is told and what it answers are JSON texts; stages are wire messages.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from azr.environment import alone_on, environment
from azr.footprint import on_gpus
from azr.log_file import redirect
from common.config import Config
from common.errors import AzrError
from common.messages import Stage
from common.wire import unpack_record

DEVICES = {"gloo": "cpu", "nccl": "cuda:0"}  # where a transport's buffers are


def bytes_only(config: Config, pipe: Connection, log: Path) -> None:
    """Receive so many buffers of a size: ready, got it, ready, got it."""
    redirect(log)
    with _telling(pipe):
        os.environ.update({"OMP_NUM_THREADS": str(config.engine.threads)} | _gpus(config))
        import torch

        from common.collective import Group

        asked = json.loads(pipe.recv_bytes())
        transport = asked["transport"]
        group = Group.create(asked["host"], asked["port"], 1, 2, asked["timeout"], transport)
        buffer = torch.zeros(asked["size"], dtype=torch.uint8, device=DEVICES[transport])
        for _ in range(asked["pushes"]):
            _tell(pipe)
            group.broadcast(buffer)
            _tell(pipe)
        group.close()


def engine(config: Config, pipe: Connection, log: Path) -> None:
    """Start the engine, then stage and commit each stage that comes, until an empty text does."""
    redirect(log)
    from actors import engine as engines

    with _telling(pipe):
        os.environ.update(engines.environment(config.engine.threads))
        os.environ.update(environment("actor", gpus=on_gpus(config)) | _gpus(config))
        asyncio.run(_serve(config, pipe))


async def _serve(config: Config, pipe: Connection) -> None:
    from actors.engine import create

    made = create(config.engine, config.model)
    await made.start()
    _tell(pipe)
    while (message := await asyncio.to_thread(pipe.recv_bytes)) != b"{}":
        stage = unpack_record(message)
        assert isinstance(stage, Stage)
        staged = await made.stage(stage)
        loaded = await made.commit(stage.version)
        _tell(pipe, stage=staged.seconds, pause=loaded.pause, load=loaded.load)
    await made.close()


def _gpus(config: Config) -> dict[str, str]:
    return {"CUDA_VISIBLE_DEVICES": beside_learner(config, os.environ.get("CUDA_VISIBLE_DEVICES"))}


def beside_learner(config: Config, visible: str | None) -> str:
    """CUDA_VISIBLE_DEVICES of an engine whose learner has the first of `visible` (None: all): those behind them, the
    same, or none.

    PartFailed if there are fewer.
    """
    if not on_gpus(config):
        return ""
    disjoint = config.cluster.placement == "disjoint"
    first = config.learner.ranks if disjoint else 0
    wanted = range(first, first + config.engine.tensor_parallel)
    return ",".join(alone_on(number, visible)["CUDA_VISIBLE_DEVICES"] for number in wanted)


@contextmanager
def _telling(pipe: Connection) -> Iterator[None]:
    try:
        yield
    except AzrError as error:
        _tell(pipe, failed=str(error))


def _tell(pipe: Connection, **fields: object) -> None:
    pipe.send_bytes(json.dumps(fields).encode())
