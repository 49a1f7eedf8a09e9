import asyncio
import sys
from dataclasses import replace

import pytest
import torch

from actors.receiver import Receiver, check
from actors.staging import DeviceBuffer, fields, handle_of, map_buffer, opened
from common.checksum import checksum
from common.collective import Door, Group, flatten
from common.delta import encode
from common.errors import WeightTransferFailed
from common.messages import Stage, TensorMeta
from common.shipment import DeviceHandle, Shipment
from tests.fakes.device import FakeDevice

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

    @property
    def port(self) -> int:
        return self._door.port

    async def send(self, version: int, digest: str = checksum(BUFFER)) -> None:
        stage = Stage(self._epoch, version, "127.0.0.1", self._door.port, 1, 2, METAS, digest, TIMEOUT)
        await self.deliver(stage, BUFFER)

    async def deliver(self, stage: Stage, sent: torch.Tensor | None) -> None:
        received = asyncio.create_task(asyncio.to_thread(self._receiver.receive, stage))
        if self._group is None:
            self._group = await asyncio.to_thread(self._door.enter)
        if sent is not None:
            await asyncio.to_thread(self._group.broadcast, sent)
        await received


async def test_a_staged_buffer_can_be_mapped_by_another_process() -> None:
    receiver = Receiver(SCHEMA)
    await Push(0, receiver).send(3)
    with receiver.loading(3) as staged:
        assert (staged.version, staged.tensors) == (3, METAS)
        path = staged.source(own_process=False)
        assert isinstance(path, str)
        assert torch.equal(map_buffer(path), BUFFER)
        read = f"import sys; sys.stdout.buffer.write(open({path!r}, 'rb').read())"
        reader = await asyncio.create_subprocess_exec(sys.executable, "-c", read, stdout=asyncio.subprocess.PIPE)
        copy, _ = await reader.communicate()
    assert copy == BUFFER.numpy().tobytes()
    receiver.close()
    with pytest.raises(FileNotFoundError):
        map_buffer(path)


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


# -- deltas, GPUs and handles --------------------------------------------------------------------------------------


def stage_of(version: int, shipment: Shipment, digest: str, push: Push | None = None, epoch: int = 0) -> Stage:
    port = 0 if push is None else push.port
    return Stage(epoch, version, "127.0.0.1", port, 1, 2, METAS, digest, TIMEOUT, shipment)


def changed(value: float) -> torch.Tensor:
    buffer = BUFFER.clone()
    buffer[4:8].view(torch.float32).fill_(value)
    return buffer


def delta(base: torch.Tensor, new: torch.Tensor) -> tuple[int, torch.Tensor]:
    made = encode(base, new, 4)
    assert made is not None
    return made


async def test_a_delta_patches_what_is_here_and_the_whole_is_compared() -> None:
    receiver = Receiver(SCHEMA)
    push = Push(0, receiver)
    await push.send(1)
    entries, patch = delta(BUFFER, changed(7.0))
    await push.deliver(stage_of(2, Shipment("gloo", 1, entries), checksum(changed(7.0)), push), patch)
    with receiver.loading(2) as staged, opened(staged.source(own_process=True)) as buffer:
        assert torch.equal(buffer, changed(7.0))
    await push.deliver(stage_of(3, Shipment("gloo", 2, 0), checksum(changed(7.0)), push), None)  # nothing changed
    with receiver.loading(3):
        pass
    receiver.close()


async def test_a_delta_against_another_version_is_refused_and_costs_the_group() -> None:
    receiver = Receiver(SCHEMA)
    push = Push(0, receiver)
    await push.send(1)
    with pytest.raises(WeightTransferFailed, match="against version 0, but version 1 is here"):
        receiver.receive(stage_of(2, Shipment("gloo", 0, 1), "0" * 16, push))
    with pytest.raises(WeightTransferFailed, match="nothing is staged"), receiver.loading(1):
        pass
    await Push(1, receiver).send(2)
    receiver.close()


async def test_a_patch_that_gives_another_whole_is_refused_and_nothing_patches_its_result() -> None:
    receiver = Receiver(SCHEMA)
    push = Push(0, receiver)
    await push.send(1)
    entries, patch = delta(BUFFER, changed(7.0))
    with pytest.raises(WeightTransferFailed, match="checksum of version 2"):
        await push.deliver(stage_of(2, Shipment("gloo", 1, entries), checksum(BUFFER), push), patch)
    again = Push(1, receiver)
    with pytest.raises(WeightTransferFailed, match="against version 1, but no version is here"):
        await again.deliver(stage_of(2, Shipment("gloo", 1, 1), "0" * 16, again, epoch=1), None)
    receiver.close()


async def test_what_another_group_sent_is_neither_loaded_nor_patched() -> None:
    """An engine that is kept for another run has a version of the same number from another learner."""
    receiver = Receiver(SCHEMA)
    await Push(0, receiver).send(1)
    receiver.leave()
    with pytest.raises(WeightTransferFailed, match="nothing is staged"), receiver.loading(1):
        pass
    again = Push(0, receiver)
    with pytest.raises(WeightTransferFailed, match="against version 1, but no version is here"):
        await again.deliver(stage_of(2, Shipment("gloo", 1, 1), "0" * 16, again), None)
    receiver.close()


async def test_without_a_checksum_nothing_is_compared() -> None:
    receiver = Receiver(SCHEMA)
    await Push(0, receiver).send(1, digest="")
    with receiver.loading(1):
        pass
    receiver.close()


def test_memory_of_the_learner_is_looked_at_and_loaded_from_where_it_is() -> None:
    gpu = FakeDevice()
    receiver = Receiver(SCHEMA, lambda: gpu)
    handle = gpu.share(BUFFER)
    receiver.receive(stage_of(4, Shipment("ipc", handle=handle), checksum(BUFFER)))
    assert (gpu.open, gpu.opened_ever) == (0, 1)
    with receiver.loading(4) as staged:
        for own_process in (False, True):
            source = staged.source(own_process=own_process)
            assert not isinstance(source, (str, torch.Tensor)) and handle_of(source) == handle
    with pytest.raises(WeightTransferFailed, match="checksum of version 5"):
        receiver.receive(stage_of(5, Shipment("ipc", handle=handle), "0" * 16))
    with pytest.raises(WeightTransferFailed, match="nothing is staged"), receiver.loading(5):
        pass
    with pytest.raises(WeightTransferFailed, match="cannot be mapped"):
        receiver.receive(stage_of(5, Shipment("ipc", handle=replace(handle, memory="99")), checksum(BUFFER)))
    with pytest.raises(WeightTransferFailed, match="its tensors need"):
        receiver.receive(stage_of(5, Shipment("ipc", handle=gpu.share(BUFFER[:-64])), checksum(BUFFER)))
    receiver.close()


def test_a_buffer_on_a_gpu_is_shared_once_and_taken_as_it_is_by_a_worker_of_this_process() -> None:
    gpu = FakeDevice()
    buffer = DeviceBuffer(128, gpu)
    assert buffer.source(own_process=True) is buffer.bytes and not gpu.shared
    first, again = buffer.source(own_process=False), buffer.source(own_process=False)
    assert first == again and list(gpu.shared.values()) == [buffer.bytes]
    with pytest.raises(WeightTransferFailed, match="no room"):
        DeviceBuffer(128, FakeDevice(room=100))


def test_a_handle_travels_as_vllm_takes_it() -> None:
    from vllm.v1.serial_utils import MsgpackDecoder, MsgpackEncoder

    handle = DeviceHandle("00ff", 1 << 40, 512, "aa", 7)
    sent = MsgpackEncoder().encode(("load_staged", fields(handle)))
    _, got = MsgpackDecoder().decode(sent)
    assert handle_of(got) == handle
