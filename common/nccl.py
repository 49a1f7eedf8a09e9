"""Broadcasts between GPUs with a deadline, which NCCL by itself has not.

torch watches NCCL from a thread that ends the process when an operation takes too long. Here a lost member must end
nothing but the push: a group made with TORCH_NCCL_BLOCKING_WAIT has no such thread (torch 2.7 and later:
ProcessGroupNCCL.cpp, constructor), and a wait ends with its timeout, aborts the communicator and raises. torch reads
that variable when a group is made, so it is set for that moment alone, and other groups of the process keep theirs.
The communicator itself is made without any deadline. Members therefore meet at the store first, so that one that never
came is noticed there, and the first operation runs on a thread that is left behind if it hangs.

Two processes on one GPU: docs/weights.md.
Not guaranteed: that the others notice at once when a member goes; they do when their deadline is over.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from common.errors import WeightTransferFailed

c10d: Any = torch.distributed  # its type stubs leave out most of what is used here
cuda: Any = torch.cuda

CHUNK = 1 << 28  # bytes sent at a time
ONE_GPU = (
    "NCCL takes two processes on one GPU only from 2.30 on, preloaded, with NCCL_MULTI_RANK_GPU_ENABLE=1 and "
    "NCCL_NVLS_ENABLE=0 (docs/weights.md); else set weights.transport to ipc or gloo"
)
_BLOCKING = "TORCH_NCCL_BLOCKING_WAIT"


class Nccl:
    """The connections of one member. `group`: a ProcessGroupNCCL, or what behaves like one.

    `broadcast` raises RuntimeError when the deadline is over or a member is lost; the connections are gone then.
    """

    def __init__(self, group: Any, timeout: float, chunk: int = CHUNK) -> None:
        self._group, self._timeout, self._chunk = group, timeout, chunk

    def broadcast(self, buffer: Tensor) -> None:
        """Send (rank 0) or fill (others) `buffer`, uint8 [bytes] on a GPU; all of it within the timeout."""
        options = c10d.BroadcastOptions()
        options.rootRank = 0
        deadline = time.monotonic() + self._timeout
        try:
            for begin in range(0, buffer.numel(), self._chunk):
                part = buffer[begin : begin + self._chunk]
                left = max(0.001, deadline - time.monotonic())
                self._group.broadcast([part], options).wait(timedelta(seconds=left))
        except RuntimeError:
            self.close()
            raise

    def close(self) -> None:
        """Without waiting for the others. May be repeated."""
        group, self._group = self._group, _Closed()
        group.abort()


class _Closed:
    def broadcast(self, *_: object) -> Any:
        raise RuntimeError("the connections are closed")

    def abort(self) -> None: ...


def join(store: Any, rank: int, world: int, timeout: float) -> Nccl:
    """Meet the other members behind `store`. RuntimeError if not all are there in time, or NCCL refuses."""
    if not c10d.is_nccl_available():
        raise WeightTransferFailed("this torch has no NCCL: install the CUDA build, or set weights.transport=gloo")
    meet(store, rank, world, timeout)
    options = c10d.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=timeout)
    device = torch.device("cuda", torch.cuda.current_device())
    with blocking_wait():
        members = Nccl(c10d.ProcessGroupNCCL(c10d.PrefixStore("nccl", store), rank, world, options), timeout)

    def connect() -> None:
        with cuda.stream(cuda.Stream(device)):  # the default stream may be in the middle of a training step
            members.broadcast(torch.zeros(8, dtype=torch.uint8, device=device))

    failed = within(timeout, connect)
    if failed is not None:
        raise failed
    return members


def meet(store: Any, rank: int, world: int, timeout: float) -> None:
    """Return when all `world` members have come this far. RuntimeError after the timeout."""
    store.set(f"here/{rank}", "")
    store.wait([f"here/{other}" for other in range(world)], timedelta(seconds=timeout))


def within(seconds: float, work: Callable[[], None]) -> RuntimeError | None:
    """Run `work` and return the RuntimeError it raised, if any, or one if it takes longer: it is left behind then."""
    failures: list[RuntimeError] = []

    def run() -> None:
        try:
            work()
        except RuntimeError as error:
            failures.append(error)

    thread = threading.Thread(target=run, name="nccl", daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        return RuntimeError(f"NCCL did not connect within {seconds:g} s")
    return failures[0] if failures else None


@contextmanager
def blocking_wait() -> Iterator[None]:
    """Groups that are made inside wait with a deadline and are not watched."""
    before = os.environ.get(_BLOCKING)
    os.environ[_BLOCKING] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_BLOCKING]
        else:
            os.environ[_BLOCKING] = before


def reason(error: RuntimeError) -> str:
    """What to tell people; the whole of NCCL's message is pages."""
    text = str(error)
    if "duplicate gpu" in text.lower():
        return f"Duplicate GPU detected: {ONE_GPU}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[:1] + lines[-1:] if len(lines) > 1 else lines)[:300]
