"""The sending end of a weight push, beside trainer rank 0.

It takes what learner/snapshots.py holds and the intake asks for, and broadcasts it on a thread, so a training step may
run meanwhile. Each epoch has its own group; a broken one is dropped and the intake asks again.

What travels is the whole buffer, or with weights.delta what changed since the version that the same group received
last, if that is less; over ipc nothing does, and the handle of the buffer goes with the offer.
Invariant: a buffer that was offered stays as it is until the intake asks for the next push, which it does only when all
engines have loaded this one or left.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from common import messages as m
from common.checksum import checksum
from common.collective import Door, Group
from common.delta import encode, word_of
from common.device import Device
from common.errors import WeightTransferFailed
from common.shipment import WHOLE, DeviceHandle, Shipment
from common.types import Float32Array, Int32Array
from learner.snapshots import KEPT, Buckets, DeviceSnapshots, HostSnapshots, Snapshots

log = logging.getLogger(__name__)


class Requests(Protocol):
    async def request(self, message: object) -> object: ...


@dataclass(frozen=True, slots=True)
class Sending:
    """`transport`: gloo, nccl or ipc; the others as in common/weights.py. `gpu`: where the learner's weights are, for
    nccl and ipc."""

    transport: str = "gloo"
    delta: bool = False
    checksum: bool = True
    gpu: Device | None = None


HOST_MEMORY = Sending()


@dataclass(frozen=True, slots=True, eq=False)
class _Probed:
    """The learner's own view of a version."""

    tensors: tuple[m.TensorMeta, ...]
    logprobs: tuple[Float32Array, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Parcel:
    """What a push sends, of a buffer with so many bytes and this checksum."""

    shipment: Shipment
    sent: Tensor | None
    whole: int
    checksum: str


class Publisher:
    """`hold` is called from the training thread; `run` on the link's loop until the intake says stop."""

    def __init__(
        self,
        client: Requests,
        host: str,
        timeout: float,
        probe: Sequence[Int32Array],
        sending: Sending = HOST_MEMORY,
    ) -> None:
        self._client, self._host, self._timeout, self._sending = client, host, timeout, sending
        self._probe = tuple(probe)
        self._gpu = sending.gpu
        self._snapshots: Snapshots = HostSnapshots() if self._gpu is None else DeviceSnapshots(self._gpu)
        self._held: dict[int, _Probed] = {}
        self._checksums: dict[int, str] = {}
        self._handles: dict[int, DeviceHandle] = {}  # by address
        self._epoch = -1
        self._group: Group | None = None
        self._received = WHOLE  # version that the group holds

    def hold(
        self, version: int, tensors: Sequence[m.TensorMeta], buckets: Buckets, probe_logprobs: Sequence[Float32Array]
    ) -> None:
        """Keep a copy of the weights in `buckets`, each read before the next is asked for, for pushes of `version`."""
        self._snapshots.hold(version, tensors, buckets)
        held = {**self._held, version: _Probed(tuple(tensors), tuple(probe_logprobs))}
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
        began = time.monotonic()
        error, sent, whole = "", 0, 0
        try:
            enter: Callable[[], Group] | None = None
            port = 0
            if push.epoch != self._epoch:
                self._drop_group()
            parcel = await asyncio.to_thread(self._pack, push.version)
            sent, whole = 0 if parcel.sent is None else parcel.sent.numel(), parcel.whole
            if self._group is None and parcel.shipment.handle is None:
                door = await asyncio.to_thread(Door, self._host, push.world, self._timeout, self._sending.transport)
                enter, port = door.enter, door.port
            held = self._held[push.version]
            offer = m.Offer(
                push.version,
                push.epoch,
                self._host,
                port,
                held.tensors,
                parcel.checksum,
                self._probe,
                held.logprobs,
                parcel.shipment,
            )
            if isinstance(await self._client.request(offer), m.Declined):
                log.warning("push of version %d: nobody waits for it", push.version)
                self._drop_group()
                return
            if parcel.sent is not None:
                await asyncio.to_thread(self._broadcast, push, enter, parcel.sent)
        except WeightTransferFailed as failure:
            log.warning("push of version %d: %s", push.version, failure)
            self._drop_group()
            error = str(failure)
        seconds = time.monotonic() - began
        await self._client.request(m.Published(push.version, push.epoch, error, seconds, sent, whole))

    def _pack(self, version: int) -> _Parcel:
        """Lends the buffers, and computes the checksum when a version is first asked for."""
        held = self._held[version]
        base = self._received if self._group is not None and self._sending.delta else WHOLE
        buffer, before = self._snapshots.lend(version, base)
        try:
            with self._beside():
                if self._sending.checksum and version not in self._checksums:
                    self._checksums[version] = checksum(buffer)
                made = None if before is None else encode(before, buffer, word_of(held.tensors))
        finally:  # whatever happens: the training thread may wait for it
            if before is not None and base != version:
                self._snapshots.give_back(base)
        digest = self._checksums.get(version, "")
        transport, whole = self._sending.transport, buffer.numel()
        if transport == "ipc":
            return _Parcel(Shipment(transport, handle=self._handle(buffer)), None, whole, digest)
        if made is None:
            return _Parcel(Shipment(transport), buffer, whole, digest)
        entries, delta = made
        return _Parcel(Shipment(transport, base, entries), delta, whole, digest)

    def _broadcast(self, push: m.Push, enter: Callable[[], Group] | None, sent: Tensor) -> None:
        if enter is not None:
            self._group, self._epoch = enter(), push.epoch
        assert self._group is not None
        with self._beside():
            if sent.numel():
                self._group.broadcast(sent)
        self._received = push.version

    def _handle(self, buffer: Tensor) -> DeviceHandle:
        """Of a buffer that is there for good."""
        assert self._gpu is not None
        address = buffer.data_ptr()
        if address not in self._handles:
            self._handles[address] = self._gpu.share(buffer)
        return self._handles[address]

    def _beside(self) -> AbstractContextManager[None]:
        return nullcontext() if self._gpu is None else self._gpu.beside()

    def _drop_group(self) -> None:
        if self._group is not None:
            self._group.close()
        self._group, self._epoch, self._received = None, -1, WHOLE
