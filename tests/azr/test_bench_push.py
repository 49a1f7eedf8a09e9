"""The sending end of a measured push, and what it makes of a receiver that answers, fails or dies."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from azr.bench import push
from azr.bench.sending import EPOCH, OneEngine, answer, send
from common import messages as m
from common.config import Config, ModelConfig
from common.errors import PartFailed, WeightTransferFailed
from common.wire import unpack_record


def test_sizes_leave_half_of_the_memory() -> None:
    gib = 1 << 30
    assert push.sizes(5, 6 * gib, (gib, 256 << 20)) == [5, 256 << 20, gib]
    assert push.sizes(5, 6 * gib - 1, (gib, 256 << 20)) == [5, 256 << 20]


async def test_an_engine_is_offered_one_version_after_the_other() -> None:
    ours, theirs = multiprocessing.Pipe()
    held, told = list[int](), list[dict[str, float]]()
    intake = OneEngine(ours, 2, 60.0, held.append, told)
    metas = (m.TensorMeta("head", "float32", (2, 3)),)
    for version in (1, 2):
        assert await intake.request(m.WantPush()) == m.Push(version, EPOCH, 2)
        assert held[-1] == version
        offer = m.Offer(version, EPOCH, "here", 7, metas, "digest", (), ())
        assert await intake.request(offer) == m.Ack()
        assert unpack_record(theirs.recv_bytes()) == m.Stage(
            EPOCH, version, "here", 7, rank=1, world=2, tensors=metas, checksum="digest", timeout=60.0
        )
        theirs.send_bytes(b'{"load": 0.25}')
        await intake.request(m.Published(version, EPOCH))
    assert told == [{"load": 0.25}] * 2
    assert await intake.request(m.WantPush()) == m.Push(2, EPOCH, 2, stop=True)
    with pytest.raises(WeightTransferFailed, match="lost"):
        await intake.request(m.Published(2, EPOCH, "lost a member"))


def test_a_receiver_that_fails_or_dies_is_named() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.send_bytes(b'{"failed": "no room"}')
    with pytest.raises(PartFailed, match="no room"):
        answer(ours, 60.0)
    theirs.close()
    with pytest.raises(PartFailed, match="died"):
        answer(ours, 60.0)


def test_the_weights_of_the_model_arrive_at_a_receiver(tmp_path: Path) -> None:
    from actors.receiver import Receiver
    from tests.actors.models import random_model

    named = dict(random_model(tmp_path, 0).named_parameters())
    schema = {name: m.TensorMeta(name, "float32", tuple(weight.shape)) for name, weight in named.items()}

    def receive(pipe: Connection) -> list[int]:
        receiver, versions = Receiver(schema), []
        for _ in range(2):
            stage = unpack_record(pipe.recv_bytes())
            receiver.receive(stage)  # raises unless names, shapes and checksum agree
            with receiver.loading(stage.version) as staged:
                versions.append(staged.version)
            pipe.send_bytes(b'{"pause": 0.5}')
        receiver.close()
        return versions

    ours, theirs = multiprocessing.Pipe()
    with ThreadPoolExecutor(1) as engine:
        received = engine.submit(receive, theirs)
        told = send(Config(model=ModelConfig(path=str(tmp_path))), ours, 2, 60.0)
        assert received.result() == [1, 2]
    assert [found["pause"] for found in told] == [0.5, 0.5]
