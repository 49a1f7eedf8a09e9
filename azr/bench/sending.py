"""The learner's end of the pushes that are measured: the real publisher, with the model's own weights, and an intake
that knows one engine and wants one push after the other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from azr.wiring import own_address
from common import messages as m
from common.config import Config
from common.errors import PartFailed, WeightTransferFailed
from common.wire import pack_record

EPOCH = 1


def send(config: Config, pipe: Connection, count: int, timeout: float) -> list[dict[str, float]]:
    """Push `count` versions to the engine behind `pipe` (azr/bench/receiving.py); what it tells of each, in seconds.

    WeightTransferFailed if a push fails, PartFailed if the engine does.
    """
    import torch

    from learner.policy import load_policy
    from learner.publisher import Publisher

    weights = load_policy(Path(config.model.path), getattr(torch, config.model.dtype)).model.named_parameters()
    held = list(weights)
    told: list[dict[str, float]] = []

    def hold(version: int) -> None:
        publisher.hold(version, held, (), ())

    intake = OneEngine(pipe, count, timeout, hold, told)
    publisher = Publisher(intake, own_address(), timeout)
    asyncio.run(publisher.run())
    return told


class OneEngine:
    """Implements learner.publisher.Requests. `hold` is asked for a version before it is wanted."""

    def __init__(
        self,
        pipe: Connection,
        count: int,
        timeout: float,
        hold: Callable[[int], None],
        told: list[dict[str, float]],
    ) -> None:
        self._pipe, self._count, self._timeout, self._hold, self._told = pipe, count, timeout, hold, told
        self._version = 0

    async def request(self, message: object) -> object:
        match message:
            case m.WantPush():
                if self._version == self._count:
                    return m.Push(self._version, EPOCH, 2, stop=True)
                self._version += 1
                self._hold(self._version)
                return m.Push(self._version, EPOCH, 2)
            case m.Offer():
                self._pipe.send_bytes(pack_record(stage(message, self._timeout)))
            case m.Published():
                if message.error:
                    raise WeightTransferFailed(message.error)
                self._told.append(await asyncio.to_thread(answer, self._pipe, self._timeout))
        return m.Ack()


def stage(offer: m.Offer, timeout: float) -> m.Stage:
    """For the only receiver of `offer`: what both messages have goes over as it is."""
    common = {field.name for field in dataclasses.fields(m.Stage)} & {f.name for f in dataclasses.fields(m.Offer)}
    return m.Stage(**{name: getattr(offer, name) for name in common}, rank=1, world=2, timeout=timeout)


def answer(pipe: Connection, timeout: float) -> dict[str, Any]:
    """PartFailed if there is none, or it tells of a failure."""
    try:
        if not pipe.poll(timeout):
            raise PartFailed("receiver", f"has not answered for {timeout:.0f} s")
        found: dict[str, Any] = json.loads(pipe.recv_bytes())
    except EOFError:
        raise PartFailed(
            "receiver", "its process died", hint="see its log, beside where readings.json would be"
        ) from None
    if "failed" in found:
        raise PartFailed("receiver", str(found["failed"]))
    return found
