"""The sending end of a measured push, and what it makes of a receiver that answers, fails or dies."""

from __future__ import annotations

import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from azr.bench import push
from azr.bench.receiving import beside_learner
from azr.bench.sending import EPOCH, OneEngine, answer, change, send
from common import messages as m
from common.config import Config, ModelConfig, load
from common.errors import PartFailed, WeightTransferFailed
from common.weights import WeightsConfig
from common.wire import unpack_record


def test_sizes_leave_half_of_the_memory() -> None:
    gib = 1 << 30
    assert push.sizes(5, 6 * gib, (gib, 256 << 20)) == [5, 256 << 20, gib]
    assert push.sizes(5, 6 * gib - 1, (gib, 256 << 20)) == [5, 256 << 20]


def test_a_receiver_has_the_gpus_that_its_engine_would_have() -> None:
    config = load("tiny.yaml", ["cluster.placement=disjoint", "learner.ranks=2", "engine.kind=async"])
    two = load("tiny.yaml", ["cluster.placement=disjoint", "engine.kind=async", "engine.tensor_parallel=2"])
    assert beside_learner(config, None) == "2" and beside_learner(config, "4,5,6") == "6"
    assert beside_learner(two, "4,5,6") == "5,6"
    with pytest.raises(PartFailed, match="names 2 GPUs, and 3 are needed"):
        beside_learner(two, "4,5")
    assert beside_learner(load("tiny.yaml", ["cluster.placement=shared"]), "4,5") == "4"
    assert beside_learner(load("tiny.yaml"), "4,5") == ""


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
        await intake.request(m.Published(version, EPOCH, sent=3, whole=24))
    assert told == [{"load": 0.25, "sent": 3, "whole": 24}] * 2
    assert await intake.request(m.WantPush()) == m.Push(2, EPOCH, 2, stop=True)
    with pytest.raises(WeightTransferFailed, match="lost"):
        await intake.request(m.Published(2, EPOCH, "lost a member"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_version_differs_from_the_one_before_in_the_last_bit_of_few_numbers(dtype: str) -> None:
    import torch

    weight = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)).to(getattr(torch, dtype))
    before = weight.clone()
    change([weight], seed=1)
    changed = weight != before
    assert 0.01 < float(changed.float().mean()) < 0.02
    assert float(((weight - before).abs() / before.abs()).max()) <= 2 * torch.finfo(weight.dtype).eps
    change([weight], seed=1)
    assert torch.equal(weight, before)
    change([weight], seed=2)
    assert not torch.equal(changed, weight != before)


def test_over_ipc_no_bytes_travel() -> None:
    assert [push.transports(carrier) for carrier in ("gloo", "nccl", "ipc")] == [["gloo"], ["gloo", "nccl"], ["gloo"]]


def test_a_receiver_that_fails_or_dies_is_named() -> None:
    ours, theirs = multiprocessing.Pipe()
    theirs.send_bytes(b'{"failed": "no room"}')
    with pytest.raises(PartFailed, match="no room"):
        answer(ours, 60.0)
    theirs.close()
    with pytest.raises(PartFailed, match="died"):
        answer(ours, 60.0)


@pytest.mark.parametrize("delta", [False, True], ids=["whole", "delta"])
def test_the_weights_of_the_model_arrive_at_a_receiver(delta: bool, tmp_path: Path) -> None:
    from actors.receiver import Receiver
    from tests.actors.models import random_model

    named = dict(random_model(tmp_path, 0).named_parameters())
    schema = {name: m.TensorMeta(name, "bfloat16", tuple(weight.shape)) for name, weight in named.items()}

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
        model, weights = ModelConfig(path=str(tmp_path), dtype="bfloat16"), WeightsConfig(delta=delta)
        told = send(Config(model=model, weights=weights), ours, 2, 60.0)
        assert received.result() == [1, 2]
    assert [found["pause"] for found in told] == [0.5, 0.5]
    assert told[0]["sent"] == told[0]["whole"] == told[1]["whole"]
    share = told[1]["sent"] / told[1]["whole"]
    assert 0.01 < share < 0.1 if delta else share == 1.0
