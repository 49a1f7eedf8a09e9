"""Absolute Zero in lock-step: generate a batch, train it, load the weights, again.

The synchronous system that a run with η = 0 must equal bit by bit. Same episode, lease material, batches, losses and
trainer; no Ray, no ZeroMQ, no admission. Prints the losses as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from actors import engine as engines
from actors.codec import Codec
from actors.episode import Parts, run_episode
from actors.triplets import PythonTriplets
from common.config import Config, load
from common.messages import Stage
from common.types import TASK_TYPES, Share, Task
from executor.shard import Shard
from learner.admission import quota
from learner.batch import sequences, shares
from learner.evaluation import held_out_programs
from learner.leases import LeaseMaker, lease_id
from learner.settlement import settle
from learner.task_book import TaskBook

HOST = "127.0.0.1"
TRAINER: list[Any] = []  # in the trainer's process: torch has one default process group, and vLLM owns that of this one


def open_trainer(config: Config, folder: Path) -> None:
    from learner.trainer import Trainer

    TRAINER.append(Trainer(config, rank=0, world=1, master=(HOST, 0), folder=folder))


def train(share: Share) -> tuple[float, list[tuple[str, Any]]]:
    loss = TRAINER[0].step(share)["loss"]
    return loss, [(name, tensor.numpy()) for name, tensor in TRAINER[0].snapshot()]


async def lockstep(config: Config, folder: Path, trainer: ProcessPoolExecutor) -> list[float]:
    environment = PythonTriplets(config.environment)
    engine = engines.create(config.engine, config.model)
    shard = Shard(config.executor)
    held_out = held_out_programs(Path(config.model.path))
    book = TaskBook(folder / "tasks.sqlite", [environment.identity(t) for t in TASK_TYPES], config, held_out)
    maker = LeaseMaker(config, book)
    await engine.start()
    await shard.start()

    async def novelty(task: Task) -> str:
        return book.status(task.type, task.key, task.program_key)

    parts = Parts(engine, shard, environment, Codec(config.model.path), novelty, config)
    losses = []
    for step in range(config.learner.steps):
        leases = sorted(
            lease_id(k, n) for k, size in quota(config).items() for n in range(step * size, (step + 1) * size)
        )
        made = [await run_episode(maker.make(lease, step), parts) for lease in leases]
        batch = settle(step, made, config, book, ())
        rows = sequences(step, batch, config.algorithm, config.run.seed).rows
        learner = config.learner
        (share,) = shares(
            step, rows, 1, learner.micro_batch_tokens, learner.minibatches, learner.share_prompts, learner.packing
        )
        loss, weights = trainer.submit(train, share).result()
        losses.append(loss)
        await load_weights(engine, weights, step + 1)
        book.add_batch(step + 1, batch)
    await engine.close()
    await shard.close()
    return losses


async def load_weights(engine: engines.Engine, weights: list[tuple[str, Any]], version: int) -> None:
    import torch

    from common.checksum import checksum
    from common.collective import Door, flatten

    tensors, buffer = flatten((name, torch.from_numpy(array)) for name, array in weights)
    door = Door(HOST, 2, 60.0)
    stage = Stage(version, version, HOST, door.port, 1, 2, tensors, checksum(buffer), 60.0)
    receiving = asyncio.create_task(engine.stage(stage))
    group = await asyncio.to_thread(door.enter)
    await asyncio.to_thread(group.broadcast, buffer)
    await receiving
    await engine.commit(version)
    group.close()


def main(preset: str, folder: Path, *settings: str) -> None:
    config = load(preset, settings)
    os.environ.update(engines.environment(config.engine.threads))
    with ProcessPoolExecutor(1, get_context("spawn"), open_trainer, (config, folder)) as trainer:
        print(json.dumps(asyncio.run(lockstep(config, folder, trainer))))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
