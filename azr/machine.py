"""What this machine has, read from Linux's own files without starting or changing anything.

`Machine` is plain data, so that what follows from it (azr/check.py) is tested with machines nobody owns. A container's
memory limit counts like a smaller machine; its CPU quota is not looked at, only the cores this process may use.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

_CGROUP_MEMORY = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


@dataclass(frozen=True, slots=True)
class Machine:
    """`memory` and `disk` are bytes free for a run, memory with what the kernel would give back."""

    system: str  # sys.platform
    cores: int  # usable by this process
    memory: int
    disk: int  # on the file system of the run folder
    seccomp: bool  # system-call filters; without them no untrusted program is run
    compiler: str  # path of a C++ compiler, empty if there is none
    headers: bool  # Python.h
    ninja: bool


def inspect(folder: Path = Path()) -> Machine:
    """This machine; `folder`, which need not exist yet, is where a run would write."""
    return Machine(
        system=sys.platform,
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory=_memory(),
        disk=shutil.disk_usage(_existing(folder)).free,
        seccomp="errno" in _read("/proc/sys/kernel/seccomp/actions_avail").split(),
        compiler=next(filter(None, map(shutil.which, (os.environ.get("CXX") or "c++", "g++", "clang++"))), ""),
        headers=Path(sysconfig.get_path("include"), "Python.h").exists(),
        ninja=shutil.which("ninja") is not None or Path(sys.executable).with_name("ninja").exists(),
    )


def _memory() -> int:
    fields = dict(line.split(":", 1) for line in _read("/proc/meminfo").splitlines())
    found = [int(fields["MemAvailable"].split()[0]) * 1024] if "MemAvailable" in fields else []
    for limit, used in _CGROUP_MEMORY:
        if _read(limit).strip().isdigit() and _read(used).strip().isdigit():
            found.append(max(0, int(_read(limit)) - int(_read(used))))
    return min(found, default=0)


def _existing(folder: Path) -> Path:
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""
