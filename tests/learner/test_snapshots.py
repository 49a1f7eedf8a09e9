"""Lifetimes of the buffers of versions, on a device that does its work as late as it may."""

from __future__ import annotations

import threading

import pytest
import torch

from common.collective import flatten, unflatten
from common.messages import TensorMeta
from learner.snapshots import KEPT, Buckets, DeviceSnapshots, HostSnapshots, Snapshots
from tests.fakes.device import FakeDevice
from tests.fakes.intake import SAFETY_NET

METAS = (TensorMeta("a", "bfloat16", (4, 3)), TensorMeta("b", "bfloat16", (70,)))


def buckets(version: int) -> Buckets:
    """Gathered one at a time: each is gone when the next is asked for."""
    for meta in METAS:
        tensor = torch.full(meta.shape, float(version))
        yield [(meta.name, tensor)]
        tensor.fill_(float("nan"))


def expected(version: int) -> torch.Tensor:
    return flatten((m.name, torch.full(m.shape, float(version)).bfloat16()) for m in METAS)[1]


def holding(snapshots: Snapshots, *versions: int) -> Snapshots:
    for version in versions:
        snapshots.hold(version, METAS, buckets(version))
    return snapshots


def both() -> list[Snapshots]:
    return [HostSnapshots(), DeviceSnapshots(FakeDevice())]


@pytest.mark.parametrize("snapshots", both(), ids=lambda s: type(s).__name__)
def test_the_newest_versions_are_held_as_copies_in_the_type_of_the_engines(snapshots: Snapshots) -> None:
    holding(snapshots, *range(6))
    for version in (3, 4, 5, 4, 3):
        buffer, _ = snapshots.lend(version)
        assert torch.equal(buffer, expected(version))
        assert [name for name, _ in unflatten(buffer, METAS)] == ["a", "b"]
    assert KEPT == 3
    with pytest.raises(KeyError):
        snapshots.lend(2)


@pytest.mark.parametrize("snapshots", both(), ids=lambda s: type(s).__name__)
def test_a_loan_is_left_alone_while_newer_versions_come(snapshots: Snapshots) -> None:
    holding(snapshots, 0)
    lent, _ = snapshots.lend(0)
    holding(snapshots, 1, 2)
    assert torch.equal(lent, expected(0))
    again, base = snapshots.lend(2, beside=0)
    assert torch.equal(again, expected(2))
    assert base is not None and torch.equal(base, expected(0))


@pytest.mark.parametrize("snapshots", both(), ids=lambda s: type(s).__name__)
def test_a_base_that_is_gone_is_none(snapshots: Snapshots) -> None:
    holding(snapshots, *range(5))
    buffer, base = snapshots.lend(4, beside=0)
    assert base is None and torch.equal(buffer, expected(4))


def test_buffers_on_the_device_are_two_and_pinned_ones_as_many_as_versions() -> None:
    device = FakeDevice()
    room = device.room
    snapshots = holding(DeviceSnapshots(device), *range(7))
    snapshots.lend(4)  # from the host
    holding(snapshots, 7)
    assert room - device.room == 2 * expected(0).numel()
    assert device.pins == KEPT


def test_a_version_that_only_the_host_has_comes_back() -> None:
    device = FakeDevice()
    snapshots = holding(DeviceSnapshots(device), 0, 1, 2)
    buffer, _ = snapshots.lend(0)
    assert torch.equal(buffer, expected(0))
    holding(snapshots, 3)
    assert torch.equal(buffer, expected(0))
    assert torch.equal(snapshots.lend(2)[0], expected(2))  # its buffer was that of version 3 since


def test_the_training_thread_does_not_wait_for_a_copy_to_the_host_until_its_source_is_needed() -> None:
    device = FakeDevice()
    snapshots = holding(DeviceSnapshots(device), 0, 1)
    assert [save.waits for save in device.saves] == [0, 0]
    assert all(save.copy is not None for save in device.saves)  # neither has been done
    holding(snapshots, 2)  # in the place of version 0
    assert [save.waits for save in device.saves] == [1, 0, 0]


def test_a_hold_waits_while_a_delta_is_made_of_both_buffers() -> None:
    snapshots = holding(DeviceSnapshots(FakeDevice()), 0)
    snapshots.lend(0)
    holding(snapshots, 1)
    new, base = snapshots.lend(1, beside=0)
    holder = threading.Thread(target=holding, args=(snapshots, 2), daemon=True)
    holder.start()
    assert base is not None and torch.equal(base, expected(0)) and torch.equal(new, expected(1))
    snapshots.give_back(0)
    holder.join(SAFETY_NET)
    assert not holder.is_alive()
    assert torch.equal(new, expected(1))
    assert torch.equal(snapshots.lend(2)[0], expected(2))


def test_another_order_of_tensors_is_a_defect() -> None:
    with pytest.raises(AssertionError):
        HostSnapshots().hold(0, METAS[::-1], buckets(0))
