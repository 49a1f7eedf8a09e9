"""Memory of a GPU, as weight pushes use it: buffers, copies beside other work, handles for other processes.

Streams: a training step is queued on the default stream. What runs `beside` is queued on another one and waits for
nothing; a Mark orders two streams where that matters.
CUDA IPC wants both processes on one machine, of one user, in containers that share /dev/shm and the process table, and
whoever made a handle to keep the memory until the last reader has closed it. Buffers are therefore made once and kept.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any, Protocol

import torch
from torch import Tensor

from common.errors import PartFailed, WeightTransferFailed
from common.shipment import DeviceHandle

cuda: Any = torch.cuda  # parts of it have no types


class Mark(Protocol):
    """A point in the work queued on a device."""

    def wait(self) -> None:
        """What this thread queues from here on runs after it. Returns at once."""
        ...

    def synchronize(self) -> None:
        """Block until the work before it is done."""
        ...


class Device(Protocol):
    def empty(self, size: int) -> Tensor:
        """uint8 [size] on the device, of no particular content. WeightTransferFailed if there is no room."""
        ...

    def pinned(self, size: int) -> Tensor:
        """uint8 [size] in host memory that the device copies to and from by itself."""
        ...

    def mark(self) -> Mark:
        """After what this thread has queued."""
        ...

    def save(self, source: Tensor, out: Tensor, after: Mark) -> Mark:
        """Begin to copy `source`, on the device, into pinned `out`; nobody waits for it but who waits for the mark."""
        ...

    def beside(self) -> AbstractContextManager[None]:
        """What is queued inside waits for nobody's work and is done at the end."""
        ...

    def share(self, buffer: Tensor) -> DeviceHandle:
        """Once per buffer. PartFailed if the allocator's memory cannot be shared."""
        ...

    def opened(self, handle: DeviceHandle) -> AbstractContextManager[Tensor]:
        """Another process's buffer, uint8 [size], until the end. WeightTransferFailed if it cannot be mapped."""
        ...


class Cuda:
    """The GPU `device` of this process."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._aside, self._saving = cuda.Stream(device), cuda.Stream(device)

    def empty(self, size: int) -> Tensor:
        try:
            return torch.empty(size, dtype=torch.uint8, device=self.device)
        except torch.OutOfMemoryError as error:
            raise WeightTransferFailed(
                f"{self.device} has no room for {size:,} bytes of staged weights: {_brief(error)}; give the engine "
                "less (engine.kv_cache_gib), or set weights.transport=gloo"
            ) from error

    def pinned(self, size: int) -> Tensor:
        buffer = torch.empty(size, dtype=torch.uint8)  # torch's own pinned memory comes in powers of two
        failed = int(cuda.cudart().cudaHostRegister(buffer.data_ptr(), size, 1))  # for every context of the process
        if failed:
            raise PartFailed(
                "weights",
                f"CUDA error {failed}: {size:,} bytes of host memory cannot be pinned",
                hint="more memory or a higher `ulimit -l`, or weights.transport=gloo",
            )
        return buffer

    def mark(self) -> Mark:
        event: Any = cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return _Event(event, self.device)

    def save(self, source: Tensor, out: Tensor, after: Mark) -> Mark:
        with torch.cuda.stream(self._saving):
            after.wait()
            out.copy_(source, non_blocking=True)
            return self.mark()

    @contextmanager
    def beside(self) -> Iterator[None]:
        with torch.cuda.stream(self._aside):
            try:
                yield
            finally:
                self._aside.synchronize()

    def share(self, buffer: Tensor) -> DeviceHandle:
        settings = os.environ.get("PYTORCH_ALLOC_CONF", "") + os.environ.get("PYTORCH_CUDA_ALLOC_CONF", "")
        if "expandable_segments:true" in settings.lower():
            raise PartFailed(
                "weights",
                "memory of expandable segments is not shared with other processes here",
                hint="take expandable_segments out of PYTORCH_ALLOC_CONF and PYTORCH_CUDA_ALLOC_CONF, or set "
                "weights.transport=gloo",
            )
        torch.cuda.current_stream(self.device).synchronize()
        storage: Any = buffer.untyped_storage()
        _, memory, size, offset, counter, counter_offset, _, _ = storage._share_cuda_()
        return DeviceHandle(memory.hex(), size, offset, counter.hex(), counter_offset)

    @contextmanager
    def opened(self, handle: DeviceHandle) -> Iterator[Tensor]:
        new: Any = torch.UntypedStorage._new_shared_cuda
        cuda.init()
        try:
            # This process's number of the device: memory of another GPU that it can reach is mapped into this one.
            storage = new(
                self.device.index,
                bytes.fromhex(handle.memory),
                handle.size,
                handle.offset,
                bytes.fromhex(handle.counter),
                handle.counter_offset,
                b"",
                False,  # torch's event is of the first content alone, and each opening of it would leave one behind
            )
        except RuntimeError as error:
            raise WeightTransferFailed(
                f"the weights on the GPU of another process cannot be mapped: {_brief(error)}; CUDA IPC needs both on "
                "one machine, of one user, in one container, and GPUs that reach each other; else set "
                "weights.transport=gloo"
            ) from error
        try:
            yield torch.empty(0, dtype=torch.uint8, device=self.device).set_(storage)
        finally:
            torch.cuda.synchronize(self.device)  # nothing reads it any more when it is unmapped with the last reference


@dataclasses.dataclass(frozen=True)
class _Event:
    event: Any
    device: torch.device

    def wait(self) -> None:
        self.event.wait(torch.cuda.current_stream(self.device))

    def synchronize(self) -> None:
        self.event.synchronize()


@cache
def current() -> Cuda:
    """The GPU that this process uses where it names none: the first of those it sees."""
    return Cuda(torch.device("cuda", torch.cuda.current_device()))


def _brief(error: RuntimeError) -> str:
    return str(error).partition("\n")[0][:200]
