"""Absolute Zero in lock-step, in one process: generate a batch, train it, load the weights, again.

The synchronous system that a run with η = 0 must equal bit by bit. Same episode, lease material, batches, losses and
trainer; no Ray, no ZeroMQ, no admission. Prints the losses as JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from actors import engine as engines
from actors.codec import Codec
from actors.episode import Parts, run_episode
from actors.triplets import PythonTriplets
from common.config import Config, load
from common.messages import Stage
from common.types import Group, TaskType
from executor.shard import Shard
from learner.batch import sequences, shares
from learner.intake import quota
from learner.leases import LeaseMaker, lease_id
from learner.task_book import TaskBook

HOST = "127.0.0.1"


async def lockstep(config: Config, folder: Path) -> list[float]:
    from learner.trainer import Trainer

    environment = PythonTriplets(config.environment)
    engine = engines.create(config.engine, config.model)
    shard = Shard(config.executor)
    book = TaskBook(folder / "tasks.sqlite", [environment.identity(t) for t in TaskType])
    maker = LeaseMaker(config, book)
    await engine.start()
    await shard.start()
    trainer = Trainer(config, rank=0, world=1, master=(HOST, 0), folder=folder)

    async def known(key: str) -> bool:
        return book.knows([key])[0]

    parts = Parts(engine, shard, environment, Codec(config.model.path), known, config)
    losses = []
    for step in range(config.learner.steps):
        batch: list[Group] = []
        for kind, size in quota(config).items():
            for number in range(step * size, (step + 1) * size):
                batch.append(await run_episode(maker.make(lease_id(kind, number), step), parts))
        batch.sort(key=lambda group: group.lease)
        rows, _ = sequences(step, batch, config.algorithm.stream_weight)
        (share,) = shares(step, rows, 1, config.learner.micro_batch_tokens)
        losses.append(trainer.step(share)["loss"])
        await load_weights(engine, trainer, step + 1)
        book.add_batch(step + 1, batch)
    await engine.close()
    await shard.close()
    trainer.close()
    return losses


async def load_weights(engine: engines.Engine, trainer: object, version: int) -> None:
    from common.collective import Door, checksum, flatten

    tensors, buffer = flatten(trainer.snapshot())  # type: ignore[attr-defined]
    door = Door(HOST, 2, 60.0)
    stage = Stage(version, version, HOST, door.port, 1, 2, tensors, checksum(buffer), 60.0)
    receiving = asyncio.create_task(engine.stage(stage))
    group = await asyncio.to_thread(door.enter)
    await asyncio.to_thread(group.broadcast, buffer)
    await receiving
    await engine.commit(version)
    group.close()


if __name__ == "__main__":
    settings = load(sys.argv[1], sys.argv[3:])
    os.environ.update(engines.environment(settings.engine.threads))
    print(json.dumps(asyncio.run(lockstep(settings, Path(sys.argv[2])))))
