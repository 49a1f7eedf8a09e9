"""Pushes over real groups: the publisher on the test's loop, each receiver on a thread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import numpy as np
import pytest
import torch

from common import messages as m
from common.checksum import checksum
from common.collective import Group, flatten, layout, unflatten
from common.errors import WeightTransferFailed
from learner.publisher import HOST_MEMORY, Publisher, Sending
from learner.snapshots import KEPT
from tests.fakes.intake import SAFETY_NET

HOST = "127.0.0.1"
TIMEOUT = 60.0  # longer than the safety net, so that a test that has to wait for it fails
PROBE = [np.arange(4, dtype=np.int32)]
TOO_BIG_FOR_SOCKET_BUFFERS = 1 << 23  # float32: 32 MiB


class Line:
    """The line to the intake. A push is asked for when the test says so."""

    def __init__(self) -> None:
        self.pushes: asyncio.Queue[m.Push] = asyncio.Queue()
        self.declines = False
        self._offers: asyncio.Queue[m.Offer] = asyncio.Queue()
        self._published: asyncio.Queue[m.Published] = asyncio.Queue()

    async def request(self, message: object) -> object:
        match message:
            case m.WantPush():
                return await self.pushes.get()
            case m.Offer():
                await self._offers.put(message)
                if self.declines:
                    return m.Declined()
            case m.Published():
                await self._published.put(message)
        return m.Ack()

    async def offer(self, version: int, epoch: int, world: int) -> m.Offer:
        await self.pushes.put(m.Push(version, epoch, world))
        return await asyncio.wait_for(self._offers.get(), SAFETY_NET)

    async def published(self) -> m.Published:
        return await asyncio.wait_for(self._published.get(), SAFETY_NET)


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
