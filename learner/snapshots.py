"""The versions of the weights that pushes may ask for, each as one flat buffer, filled bucket by bucket.

In host memory a version is a buffer. On a GPU the newest version and the one that was lent last have buffers of their
own there, two in all; every version is also copied to pinned host memory, beside whatever the GPU does, and a version
that is asked for later comes back from there. The trainer's step follows the copy on the device alone. It would wait
for one to the host only if two more versions were made before that one is through.

Invariants: the newest KEPT versions are held; a buffer that is lent keeps its content until the next loan, or until it
is given back. `hold` is called from the training thread, the others from that of the pushes.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from common.collective import layout, unflatten
from common.device import Device, Mark
from common.messages import TensorMeta

KEPT = 3  # while v is in force the trainer gets as far as v + 2, and an engine that joins may need any of the three
NONE = -1

Buckets = Iterable[Sequence[tuple[str, Tensor]]]


class Snapshots(Protocol):
    def hold(self, version: int, metas: Sequence[TensorMeta], buckets: Buckets) -> None:
        """Keep a copy of the tensors in `buckets`, in the order and the types of `metas`. Each bucket is read, or its
        reading queued on this thread's stream, before the next is asked for."""
        ...

    def lend(self, version: int, beside: int = NONE) -> tuple[Tensor, Tensor | None]:
        """The buffer of `version`, and that of `beside` if it is at hand; ends all earlier loans. KeyError if `version`
        is not held."""
        ...

    def give_back(self, version: int) -> None: ...


class HostSnapshots:
    def __init__(self) -> None:
        self._held: dict[int, Tensor] = {}

    def hold(self, version: int, metas: Sequence[TensorMeta], buckets: Buckets) -> None:
        buffer = torch.zeros(layout(metas)[1], dtype=torch.uint8)
        _fill(buffer, metas, buckets)
        held = {**self._held, version: buffer}
        self._held = {v: held[v] for v in sorted(held)[-KEPT:]}

    def lend(self, version: int, beside: int = NONE) -> tuple[Tensor, Tensor | None]:
        held = self._held
        return held[version], held.get(beside)

    def give_back(self, version: int) -> None:
        """What is lent is never written again."""


@dataclass
class _Slot:
    buffer: Tensor
    version: int = NONE
    filled: Mark | None = None
    saved: Mark | None = None  # its content is in host memory, too
    lent: bool = False
    filling: bool = False


@dataclass
class _Copy:
    buffer: Tensor
    saved: Mark


class DeviceSnapshots:
    """Buffers are made when the first version is held, and kept: handles to them stay good."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._slots: list[_Slot] = []
        self._copies: dict[int, _Copy] = {}
        self._free: list[Tensor] = []  # pinned buffers
        self._change = threading.Condition()

    def hold(self, version: int, metas: Sequence[TensorMeta], buckets: Buckets) -> None:
        size = layout(metas)[1]
        with self._change:
            if not self._slots:
                self._slots = [_Slot(self._device.empty(size).zero_()) for _ in range(2)]
                self._free = [self._device.pinned(size) for _ in range(KEPT)]
            # Both are lent only while a delta is made of them.
            self._change.wait_for(lambda: not all(slot.lent for slot in self._slots))
            slot = min((slot for slot in self._slots if not slot.lent), key=lambda slot: slot.version)
            slot.version, slot.filling = NONE, True
            for old in sorted(self._copies)[: -(KEPT - 1)]:
                self._free.append(self._copies.pop(old).buffer)
            copy = self._free.pop()
        if slot.saved is not None:
            slot.saved.wait()
        _fill(slot.buffer, metas, buckets)
        filled = self._device.mark()
        saved = self._device.save(slot.buffer, copy, filled)
        with self._change:
            slot.version, slot.filled, slot.saved, slot.filling = version, filled, saved, False
            self._copies[version] = _Copy(copy, saved)

    def lend(self, version: int, beside: int = NONE) -> tuple[Tensor, Tensor | None]:
        with self._change:
            found = {slot.version: slot for slot in self._slots}
            slot = found.get(version)
            other = found.get(beside) if slot is not None and beside != NONE else None
            for each in self._slots:
                each.lent = each is slot or each is other
            if slot is None:
                slot = self._reload(version)
            self._change.notify_all()
        assert slot.filled is not None
        slot.filled.synchronize()
        return slot.buffer, None if other is None else other.buffer

    def give_back(self, version: int) -> None:
        with self._change:
            for slot in self._slots:
                slot.lent = slot.lent and slot.version != version
            self._change.notify_all()

    def _reload(self, version: int) -> _Slot:
        """Bring `version` back from the host, in place of what is not the newest."""
        copy = self._copies[version]
        slot = min((slot for slot in self._slots if not slot.filling), key=lambda slot: slot.version)
        copy.saved.synchronize()
        if slot.saved is not None:
            slot.saved.synchronize()
        with self._device.beside():
            slot.buffer.copy_(copy.buffer, non_blocking=True)
            slot.filled = self._device.mark()
        slot.version, slot.saved, slot.lent = version, copy.saved, True
        return slot


def _fill(buffer: Tensor, metas: Sequence[TensorMeta], buckets: Buckets) -> None:
    views = unflatten(buffer, metas)
    for bucket in buckets:
        for name, tensor in bucket:
            expected, view = next(views)
            assert (name, tensor.shape) == (expected, view.shape), (name, expected)
            view.copy_(tensor.detach())  # what is trained in float32 may be served in bfloat16
