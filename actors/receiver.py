"""The receiving end of a push: one staging buffer per actor, filled by the collective while decoding goes on.

The buffer is anonymous shared memory that every worker process of the engine maps by path, so one member per
actor joins the group, however many workers its engine has. Nothing is left behind when the process dies.

Invariants: metas are compared with the model before anything is joined or received; a version counts as
staged only after its checksum agreed; nothing is received into a buffer that is being loaded; any failure
leaves the group, since its members may be out of step.
Not guaranteed: that a receive stops when its caller is cancelled. It ends with the stage's timeout or `close`.
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from common.collective import Group, checksum, layout
from common.errors import WeightTransferFailed
from common.messages import Stage, TensorMeta


@dataclass(frozen=True)
class Staged:
    version: int
    path: str  # of the buffer, for `map_buffer` in any process of this user on this machine
    tensors: tuple[TensorMeta, ...]


class Receiver:
    def __init__(self, schema: Mapping[str, TensorMeta]) -> None:
        """`schema`: the tensors that the model consists of, by checkpoint name."""
        self._schema = schema
        self._lock = threading.Lock()
        self._group: Group | None = None
        self._epoch = -1
        self._buffer: _Buffer | None = None
        self._staged: Staged | None = None

    def receive(self, stage: Stage) -> None:
        """Block until `stage.version` is staged. Raises WeightTransferFailed."""
        with self._lock:
            self._staged = None
            try:
                check(stage.tensors, self._schema)
                group = self._join(stage)
                buffer = self._reserve(layout(stage.tensors)[1])
                group.broadcast(buffer.bytes)
                if checksum(buffer.bytes) != stage.checksum:
                    raise WeightTransferFailed(f"checksum of version {stage.version} disagrees")
            except WeightTransferFailed:
                self.leave()
                raise
            self._staged = Staged(stage.version, buffer.path, stage.tensors)

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
        """Drop the group; a receive of another thread ends first, at the latest with its timeout."""
        group, self._group, self._epoch = self._group, None, -1
        if group is not None:
            group.close()

    def close(self) -> None:
        self.leave()
        with self._lock:
            self._staged = None
            if self._buffer is not None:
                self._buffer.close()
                self._buffer = None

    def _join(self, stage: Stage) -> Group:
        if self._group is None or self._epoch != stage.epoch:
            self.leave()
            self._group = Group.create(stage.host, stage.port, stage.rank, stage.world, stage.timeout)
            self._epoch = stage.epoch
        return self._group

    def _reserve(self, size: int) -> _Buffer:
        if self._buffer is None or self._buffer.bytes.numel() != size:
            if self._buffer is not None:
                self._buffer.close()
            self._buffer = _Buffer(size)
        return self._buffer


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


def map_buffer(path: str) -> torch.Tensor:
    """The staging buffer at `path` as uint8 [bytes], shared with the process that owns it."""
    fd = os.open(path, os.O_RDWR)
    try:
        return torch.frombuffer(mmap.mmap(fd, os.fstat(fd).st_size), dtype=torch.uint8)
    finally:
        os.close(fd)


class _Buffer:
    """Shared memory without a name, so that neither a crash nor the size of /dev/shm is a concern."""

    def __init__(self, size: int) -> None:
        self._fd = os.memfd_create("weights")
        os.ftruncate(self._fd, size)
        self.path = f"/proc/{os.getpid()}/fd/{self._fd}"
        self.bytes = torch.frombuffer(mmap.mmap(self._fd, size), dtype=torch.uint8)

    def close(self) -> None:
        os.close(self._fd)
