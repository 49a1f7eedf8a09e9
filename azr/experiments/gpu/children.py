"""Processes of a check: started with the variables that their device needs, bounded in time, ended with the check.

They are waited for on threads: some sandboxed kernels (gVisor's) have no pidfd.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common.errors import PartFailed

SHOWN = 600  # characters of a log
MULTI_RANK = (2, 30)  # the first NCCL that lets several ranks share a GPU


def environment(device: str) -> dict[str, str]:
    """What learner and engine need to find on `device`, whatever this process has."""
    if device == "cpu":
        return {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    found = {"DS_ACCELERATOR": "cuda", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # Ray would kill processes at 95 % of the memory that a virtual machine has just then, and some grow with their use.
    found["RAY_memory_monitor_refresh_ms"] = "0"
    if importlib.util.find_spec("flashinfer") is None:
        found["VLLM_USE_FLASHINFER_SAMPLER"] = "0"
    return found


@dataclass(frozen=True, slots=True)
class Nccl:
    """A library of NCCL that takes several ranks on one GPU, or why there is none."""

    path: str = ""
    why_not: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """For every process of the group. torch tells its own version all the same."""
        return {
            "LD_PRELOAD": self.path,
            "VLLM_NCCL_SO_PATH": self.path,
            "NCCL_MULTI_RANK_GPU_ENABLE": "1",
            "NCCL_NVLS_ENABLE": "0",
            "NCCL_SOCKET_IFNAME": "lo",
        }


def nccl(search: Sequence[str] | None = None) -> Nccl:
    """The newest libnccl.so.2 on the path of packages, or that of AZR_NCCL, if it is new enough."""
    named = os.environ.get("AZR_NCCL")
    places = [Path(named)] if named else [Path(p, "nvidia/nccl/lib/libnccl.so.2") for p in search or sys.path]
    found = sorted({(version, str(path)) for path in places if path.is_file() and (version := nccl_version(path))})
    if not found:
        return Nccl(why_not="no libnccl.so.2 among the packages (AZR_NCCL names one)")
    version, path = found[-1]
    if version < MULTI_RANK:
        told = ".".join(map(str, version))
        return Nccl(why_not=f"NCCL {told} of {path} takes one rank a GPU: 2.30 or newer is needed (docs/gpu.md)")
    return Nccl(str(Path(path).resolve()))


def nccl_version(path: Path) -> tuple[int, int, int] | None:
    """As the library itself tells; None if it cannot be asked."""
    number = ctypes.c_int()
    try:
        ctypes.CDLL(str(path)).ncclGetVersion(ctypes.byref(number))
    except (OSError, AttributeError):
        return None
    return number.value // 10_000, number.value // 100 % 100, number.value % 100


def perform(
    commands: Sequence[Sequence[str]],
    logs: Sequence[Path],
    variables: Mapping[str, str],
    seconds: float,
    grace: float = 0.0,
) -> None:
    """Run `commands` side by side. PartFailed, and the others are ended, when one fails or `seconds` are over; each has
    `grace` seconds to end what it started itself."""
    processes = [start(command, log, variables) for command, log in zip(commands, logs, strict=True)]
    deadline = time.monotonic() + seconds
    with ThreadPoolExecutor(len(processes)) as pool:
        waiting = {pool.submit(process.wait): number for number, process in enumerate(processes)}
        try:
            while waiting:
                ended = wait(waiting, max(0.0, deadline - time.monotonic()), FIRST_COMPLETED).done
                if not ended:
                    raise PartFailed(logs[min(waiting.values())].stem, f"was not done after {seconds:.0f} s")
                for future in ended:
                    number = waiting.pop(future)
                    if code := future.result():
                        raise PartFailed(logs[number].stem, f"ended with {code}: {end_of(logs[number])}")
        finally:
            for process in processes:
                end(process, grace)


def start(command: Sequence[str], log: Path, variables: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In a session of its own; what it prints goes to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **variables},
        )


def end(process: subprocess.Popen[bytes], grace: float = 0.0) -> None:
    """Interrupt it, if it has `grace` seconds to end by itself; then kill its session, if anything of it is left."""
    if grace and process.poll() is None:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(grace)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def end_of(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-SHOWN:]
