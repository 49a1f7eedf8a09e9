"""`azr train` as a check starts it: bounded in time, its processes counted, its folder read."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr.experiments.gpu import children
from azr.experiments.gpu.claims import Request
from azr.experiments.gpu.settings import PRESET
from azr.timeline import load_rows

LOOK = 1.0  # seconds between looks at which processes there are
GRACE = 20.0  # seconds in which processes of a run that is over must have ended


@dataclass(frozen=True)
class Run:
    """`steps`: rows of metrics of learner steps; `left`: command lines of processes that outlived it; `seen`: how many
    processes it had."""

    folder: Path
    code: int | None  # None: it was not over in time
    steps: list[dict[str, Any]]
    summary: dict[str, Any]
    left: list[str]
    seen: int
    end: str  # of what it printed


def perform(request: Request, name: str, settings: Sequence[str], variables: dict[str, str], seconds: float) -> Run:
    """Run to the end, or for `seconds`; then nothing of it is left, whatever it was."""
    folder, log = request.work / "runs" / name, request.work / f"{name}.log"
    place = [f"run.folder={folder.parent}", f"run.name={name}"]
    command = [sys.executable, "-m", "azr.cli", "train", PRESET, *settings, *place]
    process = children.start(command, log, children.environment(request.device) | variables)
    family: dict[int, int] = {}
    deadline = time.monotonic() + seconds
    try:
        while process.poll() is None and time.monotonic() < deadline:
            family |= descendants(process.pid, family)
            with suppress(subprocess.TimeoutExpired):
                process.wait(LOOK)
        code = process.poll()
    finally:
        children.end(process)
        left = survivors(family)
    summary = folder / "summary.json"
    metrics = folder / "metrics.jsonl"
    return Run(
        folder,
        code,
        [row for row in load_rows(metrics) if "groups" in row] if metrics.exists() else [],
        json.loads(summary.read_text()) if summary.exists() else {},
        left,
        len(family),
        children.end_of(log),
    )


def descendants(root: int, known: dict[int, int]) -> dict[int, int]:
    """Start times of the processes below `root`, and below those that were found before, by process number."""
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    found = {pid: stat for pid in numbers if (stat := _stat(pid))}
    family = {root} | {pid for pid, started in known.items() if found.get(pid, (0, 0))[1] == started}
    while more := {pid for pid, (parent, _) in found.items() if parent in family} - family:
        family |= more
    return {pid: found[pid][1] for pid in family - {root} if pid in found}


def survivors(family: dict[int, int]) -> list[str]:
    """Command lines of those that have not ended after GRACE."""
    deadline = time.monotonic() + GRACE
    while True:
        alive = [pid for pid, started in family.items() if (stat := _stat(pid)) and stat[1] == started]
        if not alive or time.monotonic() > deadline:
            return [_title(pid) for pid in alive]
        threading.Event().wait(min(LOOK, max(0.0, deadline - time.monotonic())))


def _stat(pid: int) -> tuple[int, int] | None:
    """(parent, start time) of a process that has not ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else (int(fields[1]), int(fields[19]))


def _title(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()[:120]
    return str(pid)
