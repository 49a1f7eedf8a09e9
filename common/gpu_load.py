"""How busy the GPUs of a process are, as NVIDIA's management library (NVML) tells.

`busy` is the driver's own figure: the share of its last sample period (1/6 to 1 s) in which a kernel ran, of whatever
process; a kernel that leaves most of the GPU idle counts whole. Memory is that of all processes. There are no samples
where library, driver or GPU is missing, and none of a GPU that does not tell (a MIG slice).
Not looked at: CUDA_DEVICE_ORDER; NVML counts GPUs by PCI bus, as CUDA does with PCI_BUS_ID.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GpuLoad:
    """`at`: seconds of the wall clock; `gpu`: its number on its machine; `busy`: 0–1; `memory`: bytes in use."""

    at: float
    gpu: int
    busy: float
    memory: int


class Gpus(Protocol):
    def sample(self, at: float) -> tuple[GpuLoad, ...]:
        """Of each GPU that the process may use, now; `at` is what its ledger calls now."""
        ...


class NoGpus:
    def sample(self, at: float) -> tuple[GpuLoad, ...]:
        return ()


class Nvml:
    """The GPUs that CUDA_VISIBLE_DEVICES names, all if it is not set. `library`: pynvml, or what answers like it."""

    def __init__(self, library: Any, environment: Mapping[str, str]) -> None:
        self._library = library
        library.nvmlInit()
        self._handles = dict(self._visible(environment.get("CUDA_VISIBLE_DEVICES")))

    def _visible(self, named: str | None) -> list[tuple[int, Any]]:
        nvml = self._library
        if named is None:
            names = [str(index) for index in range(nvml.nvmlDeviceGetCount())]
        else:
            names = [name.strip() for name in named.split(",") if name.strip()]
        found: list[tuple[int, Any]] = []
        for name in names:
            try:
                handle = self._handle(name)
                found.append((int(nvml.nvmlDeviceGetIndex(handle)), handle))
            except nvml.NVMLError as error:
                log.warning("GPU %s is not watched: %s", name, error)
        return found

    def _handle(self, name: str) -> Any:
        nvml = self._library
        return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)

    def sample(self, at: float) -> tuple[GpuLoad, ...]:
        nvml = self._library
        loads: list[GpuLoad] = []
        for index, handle in self._handles.items():
            try:
                busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
                loads.append(GpuLoad(at, index, busy, int(nvml.nvmlDeviceGetMemoryInfo(handle).used)))
            except nvml.NVMLError:
                continue  # it may answer the next time
        return tuple(loads)


def nvml() -> Any:
    """nvidia-ml-py, if it is installed."""
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


def found(library: Any, environment: Mapping[str, str] = os.environ) -> Gpus:
    """What this process can sample; nothing without a library or its driver."""
    if library is None:
        return NoGpus()
    try:
        return Nvml(library, environment)
    except library.NVMLError as error:
        log.info("no GPU is watched: %s", error)
        return NoGpus()
