"""Processes of a check end with it, and a library of NCCL is taken only if it can do what is asked."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from azr.experiments.gpu import children
from azr.experiments.gpu.children import Nccl, end, nccl, nccl_version, perform, start
from azr.experiments.gpu.whole_run import descendants, survivors
from common.errors import PartFailed

FOREVER = "import time\nwhile True: time.sleep(60)"


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def library(folder: Path, number: int | None) -> Path:
    """A shared object that answers as NCCL does; None: one that has never heard of it."""
    path = folder / "nvidia" / "nccl" / "lib" / "libnccl.so.2"
    path.parent.mkdir(parents=True)
    code = f"int ncclGetVersion(int *v) {{ *v = {number}; return 0; }}" if number is not None else "int nothing;"
    subprocess.run(["cc", "-shared", "-x", "c", "-o", str(path), "-"], input=code, text=True, check=True)
    return path


def test_all_commands_run_side_by_side_with_their_variables(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "a.log"
    perform([python("import os; print(os.environ['HELLO'])")], [log], {"HELLO": "there"}, 60)
    assert log.read_text() == "there\n"


def test_one_failure_ends_all_and_is_told(tmp_path: Path) -> None:
    logs = [tmp_path / "patient.log", tmp_path / "failing.log"]
    began = time.monotonic()
    with pytest.raises(PartFailed, match=r"(?s)failing: ended with 3: .*a word"):
        perform([python(FOREVER), python("print('a word'); raise SystemExit(3)")], logs, {}, 600)
    assert time.monotonic() - began < 300


def test_what_takes_too_long_is_ended_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    os.mkfifo(pids)
    code = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, '-c', {FOREVER!r}])
open({str(pids)!r}, 'w').write(str(child.pid))
while True: time.sleep(60)
"""
    process = start(python(code), tmp_path / "log", {})
    child = int(pids.read_text())  # waits for it
    family = descendants(process.pid, {})
    assert child in family
    end(process)
    assert survivors(family) == []
    with pytest.raises(PartFailed, match="was not done after 0 s"):
        perform([python(FOREVER)], [tmp_path / "slow.log"], {}, 0.0)


def test_what_has_a_grace_ends_what_it_started(tmp_path: Path) -> None:
    started, told = tmp_path / "started", tmp_path / "told"
    code = f"""
import pathlib, time
try:
    pathlib.Path({str(started)!r}).touch()
    while True: time.sleep(60)
except KeyboardInterrupt:
    pathlib.Path({str(told)!r}).touch()
"""
    process = start(python(code), tmp_path / "log", {})
    while not started.exists():
        os.sched_yield()
    end(process, 600.0)
    assert told.exists() and process.returncode == 0


def test_the_newest_library_that_takes_several_ranks_is_found(tmp_path: Path) -> None:
    old, new = library(tmp_path / "old", 22809), library(tmp_path / "new", 23007)
    assert (nccl_version(old), nccl_version(new)) == ((2, 28, 9), (2, 30, 7))
    found = nccl([str(tmp_path / name) for name in ("new", "old", "nowhere")])
    assert found == Nccl(str(new)) and found.environment["LD_PRELOAD"] == found.environment["VLLM_NCCL_SO_PATH"]
    assert "2.28.9" in nccl([str(tmp_path / "old")]).why_not
    assert "no libnccl" in nccl([str(tmp_path / "nowhere")]).why_not
    assert nccl_version(library(tmp_path / "strange", None)) is None


def test_a_process_without_a_gpu_sees_none() -> None:
    assert children.environment("cpu") == {"CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
    assert children.environment("cuda")["DS_ACCELERATOR"] == "cuda"
