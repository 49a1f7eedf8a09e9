"""A publisher's line to the intake, in the hands of a test."""

from __future__ import annotations

import asyncio

from common import messages as m
from tests.fakes.intake import SAFETY_NET


class Line:
    """A push is asked for when the test says so."""

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
