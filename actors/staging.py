"""Where staged weights lie until they are loaded, and how a vLLM worker gets at them.

In host memory (gloo) a buffer is anonymous shared memory that worker processes map by path, so neither a crash nor the
size of /dev/shm is a concern. On a GPU (nccl) it is the actor's own memory on the engine's first GPU, which worker
processes map by a CUDA IPC handle; a worker in this process takes it as it is, since nobody can map their own. With ipc
it is the learner's memory, and nothing of it is here.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

from common import device
from common.device import Device
from common.shipment import DeviceHandle

# What `opened` takes: a path, the fields of a DeviceHandle, or, within one process, the buffer itself.
Source = str | Sequence[str | int] | Tensor


class Buffer(Protocol):
    @property
    def bytes(self) -> Tensor:
        """uint8 [bytes], to be received into."""
        ...

    def source(self, *, own_process: bool) -> Source:
        """For a worker: one in this process, or one in another of this user on this machine."""
        ...

    def close(self) -> None: ...


class HostBuffer:
    def __init__(self, size: int) -> None:
        self._fd = os.memfd_create("weights")
        os.ftruncate(self._fd, size)
        self.bytes = torch.frombuffer(mmap.mmap(self._fd, size), dtype=torch.uint8)

    def source(self, *, own_process: bool) -> str:
        return f"/proc/{os.getpid()}/fd/{self._fd}"

    def close(self) -> None:
        os.close(self._fd)


class DeviceBuffer:
    """Shared at most once, when a worker of another process asks: torch counts the readers of every handle it makes."""

    def __init__(self, size: int, device: Device) -> None:
        self.bytes, self._device = device.empty(size), device
        self._handle: DeviceHandle | None = None

    def source(self, *, own_process: bool) -> Source:
        if own_process:
            return self.bytes
        if self._handle is None:
            self._handle = self._device.share(self.bytes)
        return fields(self._handle)

    def close(self) -> None:
        """The memory goes with the last reference; if it was shared, with this process: torch expects one reader a
        handle, and after a second one takes the memory to be in use for good."""


@contextmanager
def opened(source: Source) -> Iterator[Tensor]:
    """The staged bytes, uint8 [bytes], for as long as they are being loaded. WeightTransferFailed if out of reach."""
    if isinstance(source, Tensor):
        yield source
    elif isinstance(source, str):
        yield map_buffer(source)
    else:
        with device.current().opened(handle_of(source)) as mapped:
            yield mapped


def map_buffer(path: str) -> Tensor:
    """The host buffer at `path` as uint8 [bytes], shared with the process that owns it."""
    fd = os.open(path, os.O_RDWR)
    try:
        return torch.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), dtype=torch.uint8)
    finally:
        os.close(fd)


def fields(handle: DeviceHandle) -> tuple[str | int, ...]:
    """In types that vLLM's message coder takes."""
    return dataclasses.astuple(handle)


def handle_of(fields: Sequence[str | int]) -> DeviceHandle:
    return DeviceHandle(*fields)  # type: ignore[arg-type]  # what `fields` made of one
