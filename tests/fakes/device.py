"""A device in host memory: its work is queued like that of a GPU, and done only when somebody waits for it.

What is copied to the host `save`s late, on purpose: when a mark behind it is synchronised, or when the device's next
work has to come after it. Handles name buffers within the process. Both tell on whoever reuses memory too early.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from common.device import Mark
from common.errors import WeightTransferFailed
from common.shipment import DeviceHandle


@dataclass(eq=False)
class FakeMark:
    device: FakeDevice
    copy: tuple[Tensor, Tensor] | None = None  # from, to
    waits: int = 0

    def wait(self) -> None:
        self.waits += 1
        self._do()

    def synchronize(self) -> None:
        self._do()

    def _do(self) -> None:
        copy, self.copy = self.copy, None
        if copy is not None:
            copy[1].copy_(copy[0])


@dataclass(eq=False)
class FakeDevice:
    room: int = 1 << 30  # bytes
    saves: list[FakeMark] = field(default_factory=list)
    pins: int = 0
    open: int = 0  # mappings
    opened_ever: int = 0
    broken: bool = False  # nothing can be queued any more
    shared: dict[str, Tensor] = field(default_factory=dict)

    def empty(self, size: int) -> Tensor:
        if size > self.room:
            raise WeightTransferFailed(f"no room for {size:,} bytes")
        self.room -= size
        return torch.full((size,), 0xA5, dtype=torch.uint8)

    def pinned(self, size: int) -> Tensor:
        self.pins += 1
        return torch.full((size,), 0x5A, dtype=torch.uint8)

    def mark(self) -> FakeMark:
        return FakeMark(self)

    def save(self, source: Tensor, out: Tensor, after: Mark) -> FakeMark:
        after.wait()
        self.saves.append(FakeMark(self, (source, out)))
        return self.saves[-1]

    @contextmanager
    def beside(self) -> Iterator[None]:
        if self.broken:
            raise RuntimeError("out of memory")
        yield

    def share(self, buffer: Tensor) -> DeviceHandle:
        assert all(buffer is not other for other in self.shared.values()), "shared twice"
        name = f"{len(self.shared):02x}"
        self.shared[name] = buffer
        return DeviceHandle(name, buffer.numel(), 0, "cc", 3)

    @contextmanager
    def opened(self, handle: DeviceHandle) -> Iterator[Tensor]:
        if handle.memory not in self.shared:
            raise WeightTransferFailed("cannot be mapped")
        self.open += 1
        self.opened_ever += 1
        try:
            yield self.shared[handle.memory]
        finally:
            self.open -= 1
