"""What of the NCCL path can run without a GPU, with groups that behave as torch's says it does."""

from __future__ import annotations

import os
import threading
from datetime import timedelta
from typing import Any

import pytest
import torch

from common import nccl
from common.collective import Group
from common.errors import WeightTransferFailed

dist: Any = torch.distributed
STORE_TIMEOUT = timedelta(seconds=10)


class Work:
    def __init__(self, group: FakeGroup) -> None:
        self.group = group

    def wait(self, timeout: timedelta) -> None:
        self.group.timeouts.append(timeout.total_seconds())
        if len(self.group.sent) > self.group.breaks_after:
            raise RuntimeError("Watchdog caught collective operation timeout")


class FakeGroup:
    """Like ProcessGroupNCCL after `blocking_wait`: a wait ends with its timeout, by an error."""

    def __init__(self, breaks_after: int = 1 << 30) -> None:
        self.sent: list[torch.Tensor] = []
        self.timeouts: list[float] = []
        self.breaks_after = breaks_after
        self.aborts = 0

    def broadcast(self, tensors: list[torch.Tensor], options: object) -> Work:
        self.sent += tensors
        return Work(self)

    def abort(self) -> None:
        self.aborts += 1


def test_a_buffer_goes_in_chunks_that_share_one_deadline() -> None:
    group = FakeGroup()
    buffer = torch.arange(25, dtype=torch.uint8)
    nccl.Nccl(group, 100.0, chunk=10).broadcast(buffer)
    assert [part.numel() for part in group.sent] == [10, 10, 5]
    assert torch.equal(torch.cat(group.sent), buffer)
    assert all(part.untyped_storage().data_ptr() == buffer.untyped_storage().data_ptr() for part in group.sent)
    assert 100.0 >= group.timeouts[0] >= group.timeouts[1] >= group.timeouts[2] > 0


def test_a_deadline_that_is_over_aborts_the_connections_once() -> None:
    group = FakeGroup(breaks_after=1)
    members = nccl.Nccl(group, 100.0, chunk=10)
    with pytest.raises(RuntimeError, match="timeout"):
        members.broadcast(torch.zeros(40, dtype=torch.uint8))
    assert (len(group.sent), group.aborts) == (2, 1)
    with pytest.raises(RuntimeError, match="closed"):
        members.broadcast(torch.zeros(40, dtype=torch.uint8))
    members.close()
    assert group.aborts == 1


def test_work_that_hangs_is_left_behind() -> None:
    release = threading.Event()

    def hang() -> None:
        release.wait()

    failed = nccl.within(0.05, hang)
    release.set()
    assert failed is not None and "did not connect within 0.05 s" in str(failed)


def test_work_that_fails_or_succeeds_says_so() -> None:
    def fail() -> None:
        raise RuntimeError("refused")

    assert str(nccl.within(10.0, fail)) == "refused"
    assert nccl.within(10.0, lambda: None) is None


def test_a_member_that_never_comes_is_noticed_at_the_store() -> None:
    store = dist.TCPStore("127.0.0.1", 0, 1, True, timeout=STORE_TIMEOUT, wait_for_workers=False)
    with pytest.raises(RuntimeError):
        nccl.meet(store, 0, 2, 0.1)
    other = threading.Thread(target=nccl.meet, args=(store, 1, 2, 10.0))
    other.start()
    nccl.meet(store, 0, 2, 10.0)
    other.join()


def test_the_variable_is_set_for_a_moment_alone() -> None:
    name = "TORCH_NCCL_BLOCKING_WAIT"
    before = os.environ.get(name)
    with nccl.blocking_wait():
        assert os.environ[name] == "1"
        with nccl.blocking_wait():
            pass
        assert os.environ[name] == "1"
    assert os.environ.get(name) == before


def test_two_processes_on_one_gpu_are_told_what_it_takes() -> None:
    message = (
        "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, invalid usage, NCCL version 2.28.9\n"
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.\n"
        "Last error:\nDuplicate GPU detected : rank 0 and rank 1 both on CUDA device 18000"
    )
    told = nccl.reason(RuntimeError(message))
    assert "Duplicate GPU detected" in told and "NCCL_MULTI_RANK_GPU_ENABLE=1" in told
    other = nccl.reason(RuntimeError("NCCL error in: here\nncclSystemError\nLast error:\nno socket"))
    assert other == "NCCL error in: here; no socket"


@pytest.mark.skipif(dist.is_nccl_available(), reason="this torch has NCCL")
def test_a_torch_without_nccl_is_a_transfer_that_failed() -> None:
    store = dist.TCPStore("127.0.0.1", 0, 1, True, timeout=STORE_TIMEOUT, wait_for_workers=False)
    with pytest.raises(WeightTransferFailed, match="no NCCL"):
        Group(store, "127.0.0.1", 0, 1, 1.0, "nccl")
