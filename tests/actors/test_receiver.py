import asyncio
import sys
from dataclasses import replace

import pytest
import torch

from actors.receiver import Receiver, check, map_buffer
from common.collective import Door, Group, checksum, flatten
from common.errors import WeightTransferFailed
from common.messages import Stage, TensorMeta

TIMEOUT = 10.0
TENSORS = [("embed", torch.arange(12.0).view(4, 3)), ("norm", torch.ones(3))]
METAS, BUFFER = flatten(TENSORS)
SCHEMA = {meta.name: meta for meta in METAS}


class Push:
    """Rank 0 of one epoch with one receiver."""

    def __init__(self, epoch: int, receiver: Receiver) -> None:
        self._door = Door("127.0.0.1", 2, TIMEOUT)
        self._epoch, self._receiver = epoch, receiver
        self._group: Group | None = None

    async def send(self, version: int, digest: str = checksum(BUFFER)) -> None:
        stage = Stage(self._epoch, version, "127.0.0.1", self._door.port, 1, 2, METAS, digest, TIMEOUT)
        received = asyncio.create_task(asyncio.to_thread(self._receiver.receive, stage))
        if self._group is None:
            self._group = await asyncio.to_thread(self._door.enter)
        await asyncio.to_thread(self._group.broadcast, BUFFER)
        await received


async def test_a_staged_buffer_can_be_mapped_by_another_process() -> None:
    receiver = Receiver(SCHEMA)
    await Push(0, receiver).send(3)
    with receiver.loading(3) as staged:
        assert (staged.version, staged.tensors) == (3, METAS)
        assert torch.equal(map_buffer(staged.path), BUFFER)
        read = f"import sys; sys.stdout.buffer.write(open({staged.path!r}, 'rb').read())"
        reader = await asyncio.create_subprocess_exec(sys.executable, "-c", read, stdout=asyncio.subprocess.PIPE)
        copy, _ = await reader.communicate()
    assert copy == BUFFER.numpy().tobytes()
    receiver.close()
    with pytest.raises(FileNotFoundError):
        map_buffer(staged.path)


async def test_a_group_serves_many_versions_and_a_new_epoch_replaces_it() -> None:
    receiver = Receiver(SCHEMA)
    first = Push(0, receiver)
    await first.send(1)
    await first.send(2)
    await Push(1, receiver).send(3)
    with receiver.loading(3):
        pass
    receiver.close()


async def test_a_wrong_checksum_leaves_nothing_staged_and_the_group() -> None:
    receiver = Receiver(SCHEMA)
    push = Push(0, receiver)
    await push.send(1)
    with pytest.raises(WeightTransferFailed, match="checksum of version 2"):
        await push.send(2, digest="0" * 16)
    with pytest.raises(WeightTransferFailed, match="nothing is staged"), receiver.loading(1):
        pass
    await Push(1, receiver).send(2)
    with pytest.raises(WeightTransferFailed, match="version 2 is staged"), receiver.loading(1):
        pass
    receiver.close()


async def test_nothing_is_loaded_while_a_version_is_received() -> None:
    receiver = Receiver(SCHEMA)
    push = Push(0, receiver)
    await push.send(1)
    with receiver.loading(1):
        with pytest.raises(WeightTransferFailed, match="another is received"), receiver.loading(1):
            pass
        sent = asyncio.create_task(push.send(2))
        assert not sent.done()
    await sent
    with receiver.loading(2):
        pass
    receiver.close()


@pytest.mark.parametrize(
    ("tensors", "reason"),
    [
        (METAS[:1], "norm is missing for the model"),
        ((*METAS, TensorMeta("head", "float32", (3,))), "head is unknown to the model"),
        ((*METAS, METAS[0]), "sent twice"),
        ((replace(METAS[0], shape=(3, 4)), METAS[1]), r"embed is float32\[3, 4\], not float32\[4, 3\]"),
        ((METAS[0], replace(METAS[1], dtype="bfloat16")), r"norm is bfloat16\[3\]"),
    ],
)
def test_tensors_must_be_the_models(tensors: tuple[TensorMeta, ...], reason: str) -> None:
    with pytest.raises(WeightTransferFailed, match=reason):
        check(tensors, SCHEMA)


def test_order_does_not_matter() -> None:
    check(METAS[::-1], SCHEMA)
