"""How busy GPUs are, told by a library that stands in for NVML. No GPU is needed."""

from __future__ import annotations

from dataclasses import dataclass

from common.gpu_load import GpuLoad, NoGpus, Nvml, found


@dataclass
class Rates:
    gpu: int
    memory: int = 0


@dataclass
class Memory:
    used: int


class FakeNvml:
    """Two GPUs; the second one's utilisation cannot be read while `silent`. Handles are the numbers of the GPUs."""

    class NVMLError(Exception):
        pass

    def __init__(self, driver: bool = True) -> None:
        self.driver, self.silent, self.rates = driver, False, [25, 100]

    def nvmlInit(self) -> None:
        if not self.driver:
            raise self.NVMLError("driver not loaded")

    def nvmlDeviceGetCount(self) -> int:
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index > 1:
            raise self.NVMLError("invalid argument")
        return index

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:
        return {"GPU-aa": 0, "GPU-bb": 1}[uuid]

    def nvmlDeviceGetIndex(self, handle: int) -> int:
        return handle

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Rates:
        if self.silent and handle == 1:
            raise self.NVMLError("not supported")
        return Rates(self.rates[handle])

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Memory:
        return Memory((handle + 1) << 30)


def test_all_gpus_unless_the_environment_names_some() -> None:
    first, second = GpuLoad(7.0, 0, 0.25, 1 << 30), GpuLoad(7.0, 1, 1.0, 2 << 30)
    assert Nvml(FakeNvml(), {}).sample(7.0) == (first, second)
    assert Nvml(FakeNvml(), {"CUDA_VISIBLE_DEVICES": "1"}).sample(7.0) == (second,)
    assert Nvml(FakeNvml(), {"CUDA_VISIBLE_DEVICES": "GPU-bb, 0"}).sample(7.0) == (second, first)
    assert Nvml(FakeNvml(), {"CUDA_VISIBLE_DEVICES": ""}).sample(7.0) == ()


def test_a_gpu_that_is_not_there_or_does_not_tell_is_left_out() -> None:
    assert [load.gpu for load in Nvml(FakeNvml(), {"CUDA_VISIBLE_DEVICES": "0,5"}).sample(0.0)] == [0]
    library = FakeNvml()
    gpus = Nvml(library, {})
    library.silent = True
    assert [load.gpu for load in gpus.sample(0.0)] == [0]
    library.silent = False
    assert [load.gpu for load in gpus.sample(1.0)] == [0, 1]


def test_without_the_library_or_its_driver_there_is_nothing_to_sample() -> None:
    assert found(None, {}).sample(0.0) == NoGpus().sample(0.0) == ()
    assert found(FakeNvml(driver=False), {}).sample(0.0) == ()
    assert len(found(FakeNvml(), {}).sample(0.0)) == 2
