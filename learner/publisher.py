"""The sending end of a weight push, beside trainer rank 0.

It holds the newest snapshots, down to the version in force, and broadcasts what the intake asks for on a thread, so a
training step may run meanwhile: the snapshot is a copy. Each epoch has its own group; a broken one is
dropped and the intake asks again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from common import messages as m
from common.collective import Door, Group, checksum, flatten
from common.errors import WeightTransferFailed
from common.types import Float32Array, Int32Array

log = logging.getLogger(__name__)

KEPT = 3  # while v is in force the trainer gets as far as v + 2, and an engine that joins may need any of the three


class Requests(Protocol):
    async def request(self, message: object) -> object: ...


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Weights of one version as a flat buffer, with the learner's own view of the probe."""

    tensors: tuple[m.TensorMeta, ...]
    buffer: Tensor
    checksum: str
    probe: tuple[Int32Array, ...]
    probe_logprobs: tuple[Float32Array, ...]


class Publisher:
    """`hold` is called from the training thread; `run` on the link's loop until the intake says stop."""

    def __init__(self, client: Requests, host: str, timeout: float) -> None:
        self._client, self._host, self._timeout = client, host, timeout
        self._held: dict[int, Snapshot] = {}
        self._epoch = -1
        self._group: Group | None = None

    def hold(
        self,
        version: int,
        weights: Sequence[tuple[str, Tensor]],
        probe: Sequence[Int32Array],
        probe_logprobs: Sequence[Float32Array],
    ) -> None:
        """Keep a copy of `weights` for pushes of `version`."""
        tensors, buffer = flatten(weights)
        held = {
            **self._held,
            version: Snapshot(tensors, buffer, checksum(buffer), tuple(probe), tuple(probe_logprobs)),
        }
        self._held = {v: held[v] for v in sorted(held)[-KEPT:]}

    async def run(self) -> None:
        try:
            while True:
                push = await self._client.request(m.WantPush())
                assert isinstance(push, m.Push)
                if push.stop:
                    return
                await self._push(push)
        finally:
            self._drop_group()

    async def _push(self, push: m.Push) -> None:
        snapshot = self._held[push.version]
        began = time.monotonic()
        error = ""
        try:
            enter: Callable[[], Group] | None = None
            port = 0
            if push.epoch != self._epoch:
                self._drop_group()
                door = await asyncio.to_thread(Door, self._host, push.world, self._timeout)
                enter, port = door.enter, door.port
            offer = m.Offer(
                push.version,
                push.epoch,
                self._host,
                port,
                snapshot.tensors,
                snapshot.checksum,
                snapshot.probe,
                snapshot.probe_logprobs,
            )
            if isinstance(await self._client.request(offer), m.Declined):
                log.warning("push of version %d: nobody waits for it", push.version)
                self._drop_group()
                return
            await asyncio.to_thread(self._broadcast, push.epoch, enter, snapshot.buffer)
        except WeightTransferFailed as failure:
            log.warning("push of version %d: %s", push.version, failure)
            self._drop_group()
            error = str(failure)
        await self._client.request(m.Published(push.version, push.epoch, error, time.monotonic() - began))

    def _broadcast(self, epoch: int, enter: Callable[[], Group] | None, buffer: Tensor) -> None:
        if enter is not None:
            self._group, self._epoch = enter(), epoch
        assert self._group is not None
        self._group.broadcast(buffer)

    def _drop_group(self) -> None:
        if self._group is not None:
            self._group.close()
        self._group, self._epoch = None, -1
