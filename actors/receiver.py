"""The receiving end of a push: one staging buffer per actor, filled by the collective while decoding goes on.

One member per actor joins the group, however many workers its engine has; they get at the buffer as actors/staging.py
says. Nothing is left behind when the process dies. With weights.transport=ipc there is neither group nor buffer: the
learner's own is looked at here, loaded from later, and stays what it is until the push is over.

Invariants: metas are compared with the model before anything is joined or received; a version counts as
staged only after its checksum agreed, if there is one; a delta patches only the version it was made against, which the
same group sent, and the checksum is that of the whole buffer; nothing is received into a buffer that is being loaded;
any failure leaves the group, since its members may be out of step.
Not guaranteed: that a receive stops when its caller is cancelled. It ends with the stage's timeout or `close`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from actors.staging import Buffer, DeviceBuffer, HostBuffer, Source, fields
from common import device
from common.checksum import checksum
from common.collective import Group, layout
from common.delta import patch, size_of, word_of
from common.device import Device
from common.errors import WeightTransferFailed
from common.messages import Stage, TensorMeta
from common.shipment import WHOLE, DeviceHandle


@dataclass(frozen=True)
class Staged:
    version: int
    tensors: tuple[TensorMeta, ...]
    _buffer: Buffer | DeviceHandle

    def source(self, *, own_process: bool) -> Source:
        """For the worker that loads it."""
        if isinstance(self._buffer, DeviceHandle):
            return fields(self._buffer)
        return self._buffer.source(own_process=own_process)


class Receiver:
    def __init__(self, schema: Mapping[str, TensorMeta], gpu: Callable[[], Device] = device.current) -> None:
        """`schema`: the tensors that the model consists of, by checkpoint name. `gpu` is asked only by transports that
        need one."""
        self._schema, self._gpu = schema, gpu
        self._lock = threading.Lock()
        self._group: Group | None = None
        self._epoch = -1
        self._buffer: Buffer | None = None
        self._form = ("", 0)  # transport and bytes of the buffer
        self._content = WHOLE  # version in the buffer
        self._staged: Staged | None = None

    def receive(self, stage: Stage) -> None:
        """Block until `stage.version` is staged. Raises WeightTransferFailed."""
        with self._lock:
            self._staged = None
            try:
                check(stage.tensors, self._schema)
                handle = stage.shipment.handle
                buffer = self._look_at(handle, stage) if handle is not None else self._fill(stage)
            except WeightTransferFailed:
                self.leave()
                raise
            self._staged = Staged(stage.version, stage.tensors, buffer)

    @contextmanager
    def loading(self, version: int) -> Iterator[Staged]:
        """Hold the buffer of `version`. Raises WeightTransferFailed if that is not what is staged."""
        if not self._lock.acquire(blocking=False):
            raise WeightTransferFailed(f"version {version} cannot be loaded while another is received")
        try:
            staged = self._staged
            if staged is None or staged.version != version:
                found = "nothing" if staged is None else f"version {staged.version}"
                raise WeightTransferFailed(f"version {version} cannot be loaded: {found} is staged")
            yield staged
        finally:
            self._lock.release()

    def leave(self) -> None:
        """Drop the group and what it staged. A receive of another thread ends first, at the latest with its timeout."""
        group, self._group, self._epoch, self._staged = self._group, None, -1, None
        if group is not None:
            group.close()

    def close(self) -> None:
        self.leave()
        with self._lock:
            self._staged = None
            self._drop_buffer()

    def _look_at(self, handle: DeviceHandle, stage: Stage) -> DeviceHandle:
        gpu = self._gpu()
        with gpu.beside(), gpu.opened(handle) as mapped:
            _verify(mapped, stage)
        return handle

    def _fill(self, stage: Stage) -> Buffer:
        shipment = stage.shipment
        buffer = self._reserve(shipment.transport, layout(stage.tensors)[1])
        group = self._join(stage)
        with self._beside(shipment.transport):
            if shipment.base == WHOLE:
                self._content = WHOLE
                group.broadcast(buffer.bytes)
            else:
                self._patch(group, buffer.bytes, stage)
            _verify(buffer.bytes, stage)
        self._content = stage.version
        return buffer

    def _patch(self, group: Group, buffer: Tensor, stage: Stage) -> None:
        shipment, held = stage.shipment, self._content
        if held != shipment.base:
            found = "no version" if held == WHOLE else f"version {held}"
            raise WeightTransferFailed(f"a delta against version {shipment.base}, but {found} is here")
        width = word_of(stage.tensors)
        size = size_of(shipment.entries, width)
        delta = self._gpu().empty(size) if shipment.transport == "nccl" else torch.empty(size, dtype=torch.uint8)
        if size:
            group.broadcast(delta)
        self._content = WHOLE
        try:
            patch(buffer, shipment.entries, delta, width)
        except ValueError as error:
            raise WeightTransferFailed(f"version {stage.version}: {error}") from error

    def _join(self, stage: Stage) -> Group:
        if self._group is None or self._epoch != stage.epoch:
            self.leave()
            transport = stage.shipment.transport
            self._group = Group.create(stage.host, stage.port, stage.rank, stage.world, stage.timeout, transport)
            self._epoch, self._content = stage.epoch, WHOLE
        return self._group

    def _reserve(self, transport: str, size: int) -> Buffer:
        if self._buffer is None or self._form != (transport, size):
            self._drop_buffer()
            self._buffer = DeviceBuffer(size, self._gpu()) if transport == "nccl" else HostBuffer(size)
            self._form = (transport, size)
        return self._buffer

    def _drop_buffer(self) -> None:
        buffer, self._buffer, self._content = self._buffer, None, WHOLE
        if buffer is not None:
            buffer.close()

    def _beside(self, transport: str) -> AbstractContextManager[None]:
        return self._gpu().beside() if transport == "nccl" else nullcontext()


def check(tensors: tuple[TensorMeta, ...], schema: Mapping[str, TensorMeta]) -> None:
    """Raises WeightTransferFailed naming the first tensor that is missing, unknown or of another form."""
    names = [meta.name for meta in tensors]
    for name in sorted(set(names) ^ set(schema)):
        raise WeightTransferFailed(f"{name} is {'unknown to' if name in names else 'missing for'} the model")
    for meta in tensors:
        expected = schema[meta.name]
        if meta != expected:
            sent = f"{meta.dtype}{list(meta.shape)}"
            raise WeightTransferFailed(f"{meta.name} is {sent}, not {expected.dtype}{list(expected.shape)}")
    if len(set(names)) != len(names):
        raise WeightTransferFailed("a tensor is sent twice")


def _verify(buffer: Tensor, stage: Stage) -> None:
    """Raises WeightTransferFailed if `buffer` has another size, or another checksum than one that was sent."""
    if buffer.numel() != (size := layout(stage.tensors)[1]):
        raise WeightTransferFailed(f"version {stage.version} has {buffer.numel()} bytes, its tensors need {size}")
    if stage.checksum and checksum(buffer) != stage.checksum:
        raise WeightTransferFailed(f"checksum of version {stage.version} disagrees")
