"""`azr report RUN`: where the time of a run went, from its folder alone, while it goes on or afterwards.

The share of every process's wall time in each state of its ledger, held against what they must sum to; the critical
path (azr/critical_path.py); what weight pushes cost the actors (common/push_span.py); of a run that is over, the CPU
time of its processes; and what NVML told of the GPUs, where there are any.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from azr.critical_path import CriticalPath, critical_path
from azr.timeline import Process, Timeline, load_rows, read
from common.config import load
from common.errors import ConfigError
from common.push_span import PushCosts

TOLERANCE = 0.01  # of wall time that the states of a process may be off
SHOWN = 0.005  # seconds; what is shorter is left out
GIB = 1 << 30


def report(folder: Path) -> tuple[str, bool]:
    """The text, and whether the states of every process sum to its wall time. ConfigError if it is no run."""
    if not (folder / "config.yaml").exists():
        raise ConfigError(f"{folder} is no run folder: it has no config.yaml")
    config = load(folder / "config.yaml")
    timeline = read(folder)
    broken = [process for process in timeline.processes if abs(process.residue) > TOLERANCE]
    lines = [f"run {folder}", _progress(folder, config.learner.steps), ""]
    if not timeline.processes:
        return "\n".join([*lines, "no process has reported yet"]), True
    path = critical_path(timeline, config.staleness.eta if config.staleness.mode == "exact" else None)
    lines += [
        *_states(timeline),
        *_verdict(broken),
        "",
        *_path(path),
        *_pushes(timeline),
        *_cpu(folder),
        *_gpus(timeline),
    ]
    return "\n".join(lines), not broken


def _progress(folder: Path, steps: int) -> str:
    done = 1 + max((int(row["step"]) for row in load_rows(folder / "metrics.jsonl") if "groups" in row), default=-1)
    if not (folder / "summary.json").exists():
        return f"{done} of {steps} steps; not over, or ended without a summary"
    summary = json.loads((folder / "summary.json").read_text())
    return (
        f"{done} of {steps} steps; {summary['seconds']:.1f} s, {summary['sequences']} sequences, "
        f"{summary['sequences_per_second']:.1f} a second"
    )


def _states(timeline: Timeline) -> Iterator[str]:
    yield "where time went (share of the wall time of each process)"
    yield f"  {'process':<12}{'seconds':>9}{'residue':>10}  states"
    for process in timeline.processes:
        wall = process.wall or 1.0
        shares = "  ".join(f"{state} {seconds / wall:.1%}" for state, seconds in process.states.items())
        again = f"  (started {len(process.lives)} times)" if len(process.lives) > 1 else ""
        yield f"  {process.name:<12}{process.wall:>9.1f}{process.residue:>+10.2%}  {shares}{again}"


def _verdict(broken: list[Process]) -> Iterator[str]:
    if not broken:
        yield f"  the states of each process sum to its wall time within {TOLERANCE:.0%}"
    for process in broken:
        what = "missing from" if process.residue < 0 else "counted twice in"
        yield f"  BROKEN: {abs(process.residue):.1%} of the time of {process.name} is {what} its ledger"


def _path(path: CriticalPath | None) -> Iterator[str]:
    if path is None:
        yield "critical path: none, no trainer has reported"
        return
    yield f"critical path of {path.steps} learner steps, {path.seconds:.1f} s (what a step waited for)"
    yield f"  {'seconds':>9}{'share':>8}{'steps':>7}  state"
    for found in (stretch for stretch in path.stretches if stretch.seconds >= SHOWN):
        waited = "trainer-0 wait-batch <- " if found.waited else ""
        share = found.seconds / path.seconds
        yield f"  {found.seconds:>9.2f}{share:>8.1%}{found.steps:>7}  {waited}{found.part} {found.state}"


def _pushes(timeline: Timeline) -> Iterator[str]:
    if not timeline.pushes:
        return
    costs = PushCosts.of(timeline.pushes)
    yield from ("", "weight pushes, as each actor measured them (milliseconds)")
    yield f"  {'phase':<8}{'pushes':>7}{'p50':>9}{'p99':>9}{'max':>9}"
    for phase, of in costs.spreads.items():
        yield f"  {phase:<8}{of.count:>7}{of.p50 * 1e3:>9.1f}{of.p99 * 1e3:>9.1f}{of.max * 1e3:>9.1f}"
    if (stages := costs.spreads.get("stage")) is not None:
        yield f"  {costs.tokens} tokens were decoded while staging, in {costs.decoding} of {stages.count} stages"


def _cpu(folder: Path) -> Iterator[str]:
    summary = folder / "summary.json"
    seconds = json.loads(summary.read_text()).get("cpu_seconds", {}) if summary.exists() else {}
    if not seconds:
        return
    yield from (
        "",
        "CPU seconds (line: the thread that talks to other parts, and ZeroMQ's; not in it: child processes)",
    )
    yield f"  {'process':<12}{'CPU':>9}{'line':>9}{'share':>8}"
    for part, of in sorted(seconds.items()):
        line = of["thread"] + of["zmq"]
        yield f"  {part:<12}{of['process']:>9.2f}{line:>9.2f}{line / max(of['process'], 1e-9):>8.2%}"


def _gpus(timeline: Timeline) -> Iterator[str]:
    if timeline.gpus:
        yield from ("", "GPUs, as sampled by each process (NVML)", f"  {'process':<12}{'gpu':<8}{'busy':>7}{'GiB':>8}")
    for gpu in timeline.gpus:
        yield f"  {gpu.process:<12}{gpu.name:<8}{gpu.busy:>7.1%}{gpu.memory / GIB:>8.1f}"
