import multiprocessing
import os
from multiprocessing.connection import Connection

import numpy as np
import pytest
import torch

from common.checksum import checksum
from common.collective import Door, Group, flatten, layout, unflatten
from common.errors import WeightTransferFailed
from common.messages import TensorMeta

TIMEOUT = 3.0


def tensors() -> list[tuple[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(7)
    return [
        ("a", torch.randn(3, 5, generator=generator)),
        ("b", torch.randn(4, generator=generator).bfloat16()),
        ("empty", torch.zeros(0, 2)),
        ("scalar", torch.tensor(2.5)),
        ("strided", torch.randn(6, 4, generator=generator).T),
    ]


def test_flatten_and_unflatten_are_inverse() -> None:
    metas, buffer = flatten(tensors())
    assert buffer.dtype == torch.uint8
    assert metas[1] == TensorMeta("b", "bfloat16", (4,))
    for (name, view), (expected_name, expected) in zip(unflatten(buffer, metas), tensors(), strict=True):
        assert name == expected_name
        assert view.dtype == expected.dtype
        assert torch.equal(view, expected)


def test_views_write_through_and_offsets_are_aligned() -> None:
    metas, buffer = flatten(tensors())
    offsets, size = layout(metas)
    assert all(offset % 64 == 0 for offset in offsets)
    assert size == buffer.numel()
    next(unflatten(buffer, metas))[1].fill_(1.0)
    assert buffer[:4].view(torch.float32).item() == 1.0


def test_buffer_is_reused_when_it_fits() -> None:
    _, buffer = flatten(tensors())
    assert flatten(tensors(), buffer)[1] is buffer
    assert flatten(tensors()[:1], buffer)[1] is not buffer


def test_checksum_tells_bytes_apart() -> None:
    _, buffer = flatten(tensors())
    before = checksum(buffer)
    assert before == checksum(buffer.clone())
    buffer[3] ^= 1
    assert checksum(buffer) != before


def test_sizes_and_dtypes_are_checked() -> None:
    metas, buffer = flatten(tensors())
    with pytest.raises(WeightTransferFailed, match="bytes"):
        list(unflatten(buffer[:-64], metas))
    with pytest.raises(WeightTransferFailed, match="dtype"):
        layout([TensorMeta("a", "load", (1,))])


def member(port: int, rank: int, world: int, how: str, results: Connection) -> None:
    """A receiver in a process of its own; `how` it behaves after joining: receive | die | hang."""
    results.send("imported torch")
    results.recv()
    group = Group.create("127.0.0.1", port, rank, world, TIMEOUT)
    if how == "die":
        os._exit(1)
    if how == "hang":
        results.recv()
    buffer = torch.zeros(1 << 20, dtype=torch.uint8)
    try:
        group.broadcast(buffer)
    except WeightTransferFailed as error:
        results.send(str(error))
        return
    results.send(checksum(buffer))


class Members:
    """Receivers 1… of a group whose rank 0 is the test."""

    def __init__(self, *how: str) -> None:
        context = multiprocessing.get_context("spawn")
        self.door = Door("127.0.0.1", len(how) + 1, TIMEOUT)
        self.pipes, self.processes = [], []
        for rank, manner in enumerate(how, start=1):
            ours, theirs = context.Pipe()
            arguments = (self.door.port, rank, len(how) + 1, manner, theirs)
            process = context.Process(target=member, args=arguments, daemon=True)
            process.start()
            self.pipes.append(ours)
            self.processes.append(process)
        for pipe in self.pipes:
            assert pipe.recv() == "imported torch"
        for pipe in self.pipes:
            pipe.send("go")

    def end(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()


def random_bytes() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, 1 << 20, dtype=np.uint8))


def test_every_member_receives_the_bytes() -> None:
    members = Members("receive", "receive")
    try:
        group = members.door.enter()
        buffer = random_bytes()
        group.broadcast(buffer)
        assert [pipe.recv() for pipe in members.pipes] == [checksum(buffer)] * 2
        group.close()
    finally:
        members.end()


@pytest.mark.parametrize("how", ["die", "hang"])
def test_a_lost_member_does_not_hang_the_others(how: str) -> None:
    members = Members("receive", how)
    try:
        group = members.door.enter()
        with pytest.raises(WeightTransferFailed, match="lost a member"):
            for _ in range(100):  # the system's socket buffers take the first megabytes for a peer that is gone
                group.broadcast(random_bytes())
        group.close()
        assert members.pipes[0].recv()
    finally:
        members.end()


def test_an_incomplete_group_is_an_error() -> None:
    door = Door("127.0.0.1", 2, 0.2)
    with pytest.raises(WeightTransferFailed, match="no complete group"):
        door.enter()


def test_nobody_listening_is_an_error() -> None:
    with pytest.raises(WeightTransferFailed, match="nobody answers"):
        Group.create("127.0.0.1", 9, 1, 2, 0.2)
