"""How the bytes of one version of the weights get from the learner to every engine.

One flat buffer, broadcast in a process group of its own: gloo between host memories, NCCL between GPUs. torch's default
group is never used: vLLM and DeepSpeed each have theirs in the same processes. With gloo members bind the address by
which they reach rank 0, so host names need not resolve.

Invariants: the layout of a buffer follows from its metas alone; a member that dies or hangs costs the others
at most the timeout and raises WeightTransferFailed; then the group is unusable and has to be closed.
Not guaranteed: that the others have received anything when the sender's broadcast returns. Receivers compare
checksums.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from common import nccl
from common.errors import WeightTransferFailed
from common.messages import TensorMeta

c10d: Any = torch.distributed  # its type stubs leave out most of what is used here

ALIGNMENT = 64  # bytes: every tensor of a flat buffer starts on a cache line


class Door:
    """Rank 0's open port, where the members of one group find each other."""

    def __init__(self, host: str, world: int, timeout: float, transport: str = "gloo") -> None:
        """Listen on `host` at a port that the system picks. `world` counts rank 0 itself."""
        self.host, self.world, self.timeout, self.transport = host, world, timeout, transport
        self._store = _store(host, 0, world, True, timeout)
        self.port: int = self._store.port

    def enter(self) -> Group:
        """Block until all `world` members are here. Raises WeightTransferFailed after the timeout."""
        return Group(self._store, self.host, 0, self.world, self.timeout, self.transport)


class Members(Protocol):
    """The connections to the other members; RuntimeError if they are lost."""

    def broadcast(self, buffer: Tensor) -> None: ...

    def close(self) -> None: ...


class Group:
    """The members of one epoch. Rank 0 sends, everybody else receives."""

    @classmethod
    def create(cls, host: str, port: int, rank: int, world: int, timeout: float, transport: str = "gloo") -> Self:
        """Join the group behind `host`:`port` as `rank` > 0. Blocks until all are here or the timeout."""
        store = _store(host, port, world, False, timeout)
        return cls(store, _own_address(host, port), rank, world, timeout, transport)

    def __init__(self, store: Any, address: str, rank: int, world: int, timeout: float, transport: str) -> None:
        self.rank, self.world = rank, world
        self._store = store  # rank 0's store serves the others for as long as it lives
        self._reason = nccl.reason if transport == "nccl" else _brief
        try:
            self._members: Members | None = (
                nccl.join(store, rank, world, timeout)
                if transport == "nccl"
                else _Gloo(store, address, rank, world, timeout)
            )
        except RuntimeError as error:
            why = self._reason(error)
            raise WeightTransferFailed(f"rank {rank} of {world} found no complete group: {why}") from error

    def broadcast(self, buffer: Tensor) -> None:
        """Send (rank 0) or fill (others) `buffer`, uint8 [bytes] on CPU (gloo) or GPU (nccl).

        Blocks without holding the GIL.
        """
        members = self._members
        if members is None:
            raise WeightTransferFailed(f"rank {self.rank} of {self.world} has left the group")
        try:
            members.broadcast(buffer)
        except RuntimeError as error:
            why = self._reason(error)
            raise WeightTransferFailed(f"rank {self.rank} of {self.world} lost a member: {why}") from error

    def close(self) -> None:
        """Drop the connections. With gloo, members who wait for this one fail at once. There is no way back.

        A broadcast that another thread is in ends first, at the latest with the timeout; with NCCL it is aborted.
        """
        members, self._members = self._members, None
        if members is not None:
            members.close()


class _Gloo:
    def __init__(self, store: Any, address: str, rank: int, world: int, timeout: float) -> None:
        options = c10d.ProcessGroupGloo._Options()
        options._timeout = timedelta(seconds=timeout)
        options._devices = [c10d.ProcessGroupGloo.create_device(hostname=address)]
        self._group: Any = c10d.ProcessGroupGloo(c10d.PrefixStore("weights", store), rank, world, options)

    def broadcast(self, buffer: Tensor) -> None:
        options = c10d.BroadcastOptions()
        options.rootRank = 0
        group = self._group  # its last reference closes the connections, and must not go while an operation runs
        try:
            group.broadcast([buffer], options).wait()
        finally:
            del group  # or the traceback of a failure would keep it

    def close(self) -> None:
        self._group = None


def layout(metas: Sequence[TensorMeta]) -> tuple[list[int], int]:
    """Byte offset of every tensor, and the size of the whole buffer."""
    offsets, end = [], 0
    for meta in metas:
        offsets.append(end)
        size = math.prod(meta.shape) * dtype_of(meta).itemsize
        end += -(-size // ALIGNMENT) * ALIGNMENT
    return offsets, end


def flatten(tensors: Iterable[tuple[str, Tensor]], out: Tensor | None = None) -> tuple[tuple[TensorMeta, ...], Tensor]:
    """Copy named tensors into one uint8 buffer; `out` is used if its size fits. Padding is 0."""
    named = [(name, tensor.detach()) for name, tensor in tensors]
    metas = tuple(
        TensorMeta(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)) for name, tensor in named
    )
    _, size = layout(metas)
    if out is None or out.numel() != size:
        out = torch.zeros(size, dtype=torch.uint8)
    for (_, view), (_, tensor) in zip(unflatten(out, metas), named, strict=True):
        view.copy_(tensor)
    return metas, out


def unflatten(buffer: Tensor, metas: Sequence[TensorMeta]) -> Iterator[tuple[str, Tensor]]:
    """Named views into `buffer`, in the order of `metas`. WeightTransferFailed if the sizes disagree."""
    offsets, size = layout(metas)
    if buffer.numel() != size:
        raise WeightTransferFailed(f"buffer has {buffer.numel()} bytes, its tensors need {size}")
    for meta, offset in zip(metas, offsets, strict=True):
        dtype = dtype_of(meta)
        end = offset + math.prod(meta.shape) * dtype.itemsize
        yield meta.name, buffer[offset:end].view(dtype).view(meta.shape)


def dtype_of(meta: TensorMeta) -> torch.dtype:
    dtype = getattr(torch, meta.dtype, None)
    if not isinstance(dtype, torch.dtype):
        raise WeightTransferFailed(f"{meta.name} has unknown dtype {meta.dtype}")
    return dtype


def _store(host: str, port: int, world: int, serve: bool, timeout: float) -> Any:
    try:
        return c10d.TCPStore(host, port, world, serve, timeout=timedelta(seconds=timeout), wait_for_workers=False)
    except RuntimeError as error:
        what = f"cannot listen on {host}" if serve else f"nobody answers at {host}:{port}"
        raise WeightTransferFailed(f"{what}: {_brief(error)}") from error


def _own_address(host: str, port: int) -> str:
    """The local address that routes to `host`. A UDP connect sends nothing."""
    family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
    with socket.socket(family, kind) as probe:
        probe.connect(address)
        return str(probe.getsockname()[0])


def _brief(error: RuntimeError) -> str:
    return str(error).partition("\n")[0][:200]
