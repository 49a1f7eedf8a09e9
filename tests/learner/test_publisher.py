"""Pushes over real groups: the publisher on the test's loop, each receiver on a thread."""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection

import numpy as np
import pytest
import torch

from actors.receiver import Receiver
from actors.staging import opened
from common import messages as m
from common.checksum import checksum
from common.collective import Group, flatten, layout, unflatten
from common.errors import WeightTransferFailed
from common.shipment import WHOLE, Shipment
from learner.publisher import HOST_MEMORY, Publisher, Sending
from learner.snapshots import KEPT
from tests.fakes.device import FakeDevice
from tests.fakes.intake import SAFETY_NET
from tests.fakes.line import Line

HOST = "127.0.0.1"
TIMEOUT = 60.0  # longer than the safety net, so that a test that has to wait for it fails
PROBE = [np.arange(4, dtype=np.int32)]
TOO_BIG_FOR_SOCKET_BUFFERS = 1 << 23  # float32: 32 MiB


class Running:
    """A publisher that runs."""

    def __init__(self, timeout: float = TIMEOUT, sending: Sending = HOST_MEMORY) -> None:
        self.line = Line()
        self.publisher = Publisher(self.line, HOST, timeout, PROBE, sending)
        self.run = asyncio.create_task(self.publisher.run())

    def hold(self, version: int, size: int = 5) -> None:
        self.keep(version, weights(version, size))

    def keep(self, version: int, tensors: Sequence[tuple[str, torch.Tensor]]) -> None:
        metas, _ = flatten(tensors)
        self.publisher.hold(version, metas, ([pair] for pair in tensors), [np.full(3, version, np.float32)])

    async def stop(self) -> None:
        await self.line.pushes.put(m.Push(-1, -1, 0, stop=True))
        await asyncio.wait_for(self.run, SAFETY_NET)


@pytest.fixture
async def running() -> AsyncIterator[Running]:
    running = Running()
    yield running
    await running.stop()


def weights(version: int, size: int = 5) -> list[tuple[str, torch.Tensor]]:
    return [("a", torch.full((2, 3), float(version))), ("b", torch.arange(size).float() * version)]


def join(offer: m.Offer, rank: int, world: int) -> Group:
    return Group.create(HOST, offer.port, rank, world, TIMEOUT)


def receive(group: Group, offer: m.Offer) -> dict[str, torch.Tensor]:
    buffer = torch.zeros(layout(offer.tensors)[1], dtype=torch.uint8)
    group.broadcast(buffer)
    assert checksum(buffer) == offer.checksum
    return dict(unflatten(buffer, offer.tensors))


async def joined(offer: m.Offer, members: int) -> list[Group]:
    world = members + 1
    return await asyncio.gather(*(asyncio.to_thread(join, offer, rank, world) for rank in range(1, world)))


async def received(groups: Sequence[Group], offer: m.Offer) -> list[dict[str, torch.Tensor]]:
    return await asyncio.gather(*(asyncio.to_thread(receive, group, offer) for group in groups))


def same(got: dict[str, torch.Tensor], version: int, size: int = 5) -> bool:
    expected = dict(weights(version, size))
    return got.keys() == expected.keys() and all(torch.equal(got[name], expected[name]) for name in got)


async def test_every_member_gets_the_version_asked_for(running: Running) -> None:
    running.hold(0)
    running.hold(1)
    offer = await running.line.offer(0, epoch=1, world=3)
    assert (offer.version, offer.epoch, offer.host) == (0, 1, HOST) and offer.port > 0
    assert offer.probe[0].tolist() == PROBE[0].tolist() and offer.probe_logprobs[0].tolist() == [0.0] * 3
    groups = await joined(offer, 2)
    assert [same(got, 0) for got in await received(groups, offer)] == [True, True]
    published = await running.line.published()
    assert (published.version, published.epoch, published.error) == (0, 1, "")


async def test_a_group_serves_all_pushes_of_its_epoch(running: Running) -> None:
    running.hold(0)
    offer = await running.line.offer(0, epoch=1, world=2)
    groups = await joined(offer, 1)
    await received(groups, offer)
    await running.line.published()
    running.hold(1)
    offer = await running.line.offer(1, epoch=1, world=2)
    assert offer.port == 0
    (got,) = await received(groups, offer)
    assert same(got, 1)
    assert (await running.line.published()).error == ""


async def test_a_new_epoch_makes_a_new_group(running: Running) -> None:
    running.hold(0)
    offer = await running.line.offer(0, epoch=1, world=2)
    old = await joined(offer, 1)
    await received(old, offer)
    await running.line.published()
    again = await running.line.offer(0, epoch=2, world=3)
    assert again.port > 0
    groups = await joined(again, 2)
    assert [same(got, 0) for got in await received(groups, again)] == [True, True]
    assert (await running.line.published()).epoch == 2


async def test_a_member_that_is_lost_breaks_the_push_for_all_and_the_next_epoch_works(running: Running) -> None:
    size = TOO_BIG_FOR_SOCKET_BUFFERS
    running.hold(0, size)
    offer = await running.line.offer(0, epoch=1, world=3)
    groups = await joined(offer, 2)
    await received(groups, offer)
    assert (await running.line.published()).error == ""
    groups.pop().close()  # with the last reference its connections are gone
    again = await running.line.offer(0, epoch=1, world=3)
    with pytest.raises(WeightTransferFailed, match="lost a member"):
        await asyncio.wait_for(received(groups, again), SAFETY_NET)
    broken = await running.line.published()
    assert (broken.version, broken.epoch) == (0, 1) and "lost a member" in broken.error
    offer = await running.line.offer(0, epoch=2, world=2)
    (got,) = await received(await joined(offer, 1), offer)
    assert same(got, 0, size)
    assert (await running.line.published()).error == ""


async def test_a_push_that_nobody_waits_for_is_given_up_at_once(running: Running) -> None:
    running.hold(0)
    running.line.declines = True
    await running.line.offer(0, epoch=1, world=2)
    running.line.declines = False
    offer = await running.line.offer(0, epoch=2, world=2)
    (got,) = await received(await joined(offer, 1), offer)
    assert same(got, 0)
    assert (await running.line.published()).epoch == 2


async def test_a_group_that_nobody_joins_is_an_error_and_not_the_end() -> None:
    running = Running(timeout=0.2)
    running.hold(0)
    await running.line.offer(0, epoch=1, world=2)
    assert "no complete group" in (await running.line.published()).error
    assert not running.run.done()
    await running.stop()


async def test_what_is_held_is_a_copy(running: Running) -> None:
    tensors = weights(1)
    running.keep(1, tensors)
    for _, tensor in tensors:
        tensor.zero_()
    offer = await running.line.offer(1, epoch=1, world=2)
    (got,) = await received(await joined(offer, 1), offer)
    assert same(got, 1)
    await running.line.published()


async def test_the_version_in_force_is_held_while_two_newer_ones_come(running: Running) -> None:
    """While an evaluation holds pushes at v the trainer makes v + 1 and v + 2, and an engine may join."""
    for version in range(4, 7):
        running.hold(version)
    offer = await running.line.offer(4, epoch=1, world=2)
    (got,) = await received(await joined(offer, 1), offer)
    assert same(got, 4)
    await running.line.published()


async def test_older_versions_are_dropped() -> None:
    running = Running()
    for version in range(KEPT + 1):
        running.hold(version)
    await running.line.pushes.put(m.Push(0, 1, 2))
    with pytest.raises(KeyError):
        await asyncio.wait_for(running.run, SAFETY_NET)


# -- deltas --------------------------------------------------------------------------------------------------------

BYTES = 1 << 20  # of a buffer


def trained(version: int) -> list[tuple[str, torch.Tensor]]:
    """bfloat16 weights of which each version changes other 2 %."""
    flat = torch.randn(BYTES // 2, generator=torch.Generator().manual_seed(0)).bfloat16()
    for step in range(1, version + 1):
        flat[step :: 50 + step] += 1.0
    return [("w", flat.view(-1, 64))]


def member(ours: Connection, receives: int) -> None:
    """An actor's receiver in a process of its own: does what it is told, and says what it has."""
    receiver = Receiver({meta.name: meta for meta in flatten(trained(0))[0]})
    ours.send("ready")
    for _ in range(receives):
        stage = ours.recv()
        try:
            receiver.receive(stage)
        except WeightTransferFailed as failure:
            ours.send(str(failure))
            continue
        with receiver.loading(stage.version) as staged, opened(staged.source(own_process=True)) as buffer:
            ours.send(checksum(buffer))
    receiver.close()


class Actor:
    def __init__(self, receives: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=member, args=(theirs, receives), daemon=True)
        self.process.start()

    async def ready(self) -> None:
        assert await asyncio.to_thread(self.pipe.recv) == "ready"

    def stage(self, offer: m.Offer, rank: int, world: int) -> asyncio.Task[object]:
        self.pipe.send(
            m.Stage(offer.epoch, offer.version, HOST, offer.port, rank, world, offer.tensors, offer.checksum, TIMEOUT,
                    offer.shipment)
        )  # fmt: skip
        return asyncio.create_task(asyncio.to_thread(self.pipe.recv))


async def pushed(running: Running, version: int, epoch: int, actors: Sequence[Actor]) -> tuple[m.Offer, m.Published]:
    """A push to `actors`, after which each has the whole buffer of `version`."""
    offer = await running.line.offer(version, epoch, world=1 + len(actors))
    staged = [actor.stage(offer, rank, 1 + len(actors)) for rank, actor in enumerate(actors, start=1)]
    assert await asyncio.gather(*staged) == [checksum(flatten(trained(version))[1])] * len(actors)
    return offer, await running.line.published()


async def test_deltas_to_processes_over_several_versions_with_a_joiner_in_between() -> None:
    running = Running(sending=Sending(delta=True))
    first, second = Actor(5), Actor(2)
    await asyncio.gather(first.ready(), second.ready())
    for version in range(4):
        running.keep(version, trained(version))
        epoch, actors = (1, [first]) if version < 3 else (2, [first, second])
        offer, published = await pushed(running, version, epoch, actors)
        whole = version in (0, 3)  # the first push of each group
        assert offer.shipment.base == (WHOLE if whole else version - 1)
        assert published.whole == BYTES and published.error == ""
        assert published.sent == BYTES if whole else 0 < published.sent < 0.05 * BYTES
    running.keep(5, trained(5))  # two steps at once
    offer, published = await pushed(running, 5, 2, [first, second])
    assert (offer.shipment.base, published.sent < 0.1 * BYTES) == (3, True)
    await running.stop()
    for actor in (first, second):
        await asyncio.to_thread(actor.process.join)


async def test_a_delta_that_does_not_fit_is_followed_by_a_whole_push() -> None:
    running = Running(sending=Sending(delta=True))
    actor = Actor(3)
    await actor.ready()
    running.keep(0, trained(0))
    await pushed(running, 0, 1, [actor])
    running.keep(1, trained(1))
    offer = await running.line.offer(1, 1, world=2)
    assert offer.shipment.base == 0
    wrong = replace(offer, checksum="0" * 16)
    assert "checksum of version 1 disagrees" in str(await actor.stage(wrong, 1, 2))
    await running.line.published()
    offer, _ = await pushed(running, 1, 2, [actor])  # the intake makes a new epoch after a failure
    assert offer.shipment.base == WHOLE
    await running.stop()
    await asyncio.to_thread(actor.process.join)


async def test_more_changes_than_pay_travel_whole() -> None:
    running = Running(sending=Sending(delta=True))
    running.keep(0, trained(0))
    offer = await running.line.offer(0, epoch=1, world=2)
    groups = await joined(offer, 1)
    await received(groups, offer)
    await running.line.published()
    running.keep(1, [("w", trained(0)[0][1] + 1.0)])
    offer = await running.line.offer(1, epoch=1, world=2)
    assert offer.shipment == Shipment("gloo")
    await received(groups, offer)
    assert (await running.line.published()).sent == BYTES
    await running.stop()


async def test_a_base_that_is_no_longer_held_is_no_base() -> None:
    running = Running(sending=Sending(delta=True))
    running.keep(0, trained(0))
    offer = await running.line.offer(0, epoch=1, world=2)
    groups = await joined(offer, 1)
    await received(groups, offer)
    await running.line.published()
    for version in range(1, KEPT + 1):
        running.keep(version, trained(version))
    offer = await running.line.offer(KEPT, epoch=1, world=2)
    assert offer.shipment.base == WHOLE
    await received(groups, offer)
    await running.stop()


async def test_a_publisher_that_dies_over_a_delta_does_not_keep_the_trainer_waiting() -> None:
    gpu = FakeDevice()
    running = Running(sending=Sending(delta=True, gpu=gpu))
    running.keep(0, trained(0))
    offer = await running.line.offer(0, epoch=1, world=2)
    groups = await joined(offer, 1)
    await received(groups, offer)
    await running.line.published()
    running.keep(1, trained(1))
    gpu.broken = True
    await running.line.pushes.put(m.Push(1, 1, 2))
    with pytest.raises(RuntimeError, match="out of memory"):
        await asyncio.wait_for(running.run, SAFETY_NET)
    holder = threading.Thread(target=running.keep, args=(2, trained(2)), daemon=True)
    holder.start()
    await asyncio.to_thread(holder.join, SAFETY_NET)
    assert not holder.is_alive()


# -- a buffer on the learner's GPU ---------------------------------------------------------------------------------


async def test_over_ipc_a_handle_goes_with_the_offer_and_the_buffer_stays_until_the_next_push() -> None:
    gpu = FakeDevice()
    running = Running(sending=Sending("ipc", gpu=gpu))
    running.hold(0)
    offer = await running.line.offer(0, epoch=1, world=2)
    published = await running.line.published()
    assert (offer.port, published.sent, published.error) == (0, 0, "")
    handle = offer.shipment.handle
    assert handle is not None
    for version in (1, 2, 3):
        running.hold(version)
    with gpu.opened(handle) as buffer:
        assert checksum(buffer) == offer.checksum
        assert same(dict(unflatten(buffer, offer.tensors)), 0)
    for version in (3, 2):
        again = await running.line.offer(version, epoch=1, world=2)
        assert again.shipment.handle is not None
        with gpu.opened(again.shipment.handle) as buffer:
            assert same(dict(unflatten(buffer, offer.tensors)), version)
        await running.line.published()
    assert len(gpu.shared) == 2  # each buffer once
    await running.stop()


async def test_without_a_checksum_none_is_offered() -> None:
    running = Running(sending=Sending(checksum=False))
    running.hold(0)
    running.line.declines = True
    assert (await running.line.offer(0, epoch=1, world=2)).checksum == ""
    await running.stop()
