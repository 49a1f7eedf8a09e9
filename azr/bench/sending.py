"""The learner's end of the pushes that are measured: the real publisher, with the model's own weights, and an intake
that knows one engine and wants one push after the other.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azr.wiring import own_address
from common import messages as m
from common.config import Config
from common.errors import PartFailed, WeightTransferFailed
from common.wire import pack_record

if TYPE_CHECKING:
    from torch import Tensor

EPOCH = 1
CHANGED = 0.015  # of the numbers, from a version to the next: what learning rates of RL leave of bfloat16 weights


def send(config: Config, pipe: Connection, count: int, timeout: float) -> list[dict[str, float]]:
    """Push `count` versions as configured to the engine behind `pipe` (azr/bench/receiving.py).

    What the engine tells of each, in seconds, with `sent` of `whole` bytes that travelled. WeightTransferFailed if a
    push fails, PartFailed if the engine does.
    """
    import torch

    from common.device import Cuda
    from learner.policy import load_policy
    from learner.publisher import Publisher, Sending

    gpu = None if config.carrier == "gloo" else Cuda(torch.device("cuda", 0))
    policy = load_policy(Path(config.model.path), getattr(torch, config.model.dtype))
    weights = list(policy.to("cpu" if gpu is None else gpu.device).model.named_parameters())
    tensors = tuple(m.TensorMeta(name, config.model.dtype, tuple(weight.shape)) for name, weight in weights)
    told: list[dict[str, float]] = []

    def hold(version: int) -> None:
        if config.weights.delta:
            change([weight for _, weight in weights], version)
        publisher.hold(version, tensors, [weights], ())

    sending = Sending(config.carrier, config.weights.delta, config.weights.checksum, gpu)
    publisher = Publisher(OneEngine(pipe, count, timeout, hold, told), own_address(), timeout, (), sending)
    asyncio.run(publisher.run())
    return told


def change(weights: Sequence[Tensor], seed: int) -> None:
    """Flip the last bit of CHANGED of the numbers, drawn anew for each seed."""
    import torch

    words = {2: torch.int16, 4: torch.int32}
    for number, weight in enumerate(weights):
        chance = torch.Generator(weight.device).manual_seed(1000 * seed + number)
        chosen = torch.rand(weight.shape, generator=chance, device=weight.device) < CHANGED
        word = words[weight.element_size()]
        weight.data.view(word).bitwise_xor_(chosen.to(word))


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
                found = await asyncio.to_thread(answer, self._pipe, self._timeout)
                self._told.append({**found, "sent": message.sent, "whole": message.whole})
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
