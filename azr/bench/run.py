"""A short run of the whole system: trained sequences a second, what pushes cost in it, where its time went.

Rates are those between the first and the last steps, which fill and drain queues (azr/experiments/rate.py). The ledger
tells what each process did of its wall time, NVML whether the GPUs that it uses had a kernel: of sample periods of the
driver, one each second. Both are over the whole run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from azr.bench.figures import Reading
from azr.bench.loop import train
from azr.bench.part import Job
from azr.experiments.rate import of_run, steady
from azr.report import TOLERANCE
from azr.simulation.measured import rows
from azr.timeline import Process, Timeline, read
from common.errors import ConfigError, PartFailed

SECTION = "run"
LEDGER, NVML = "busy by ledger", "busy by NVML"
SETTINGS = ("eval.tasks=0", "eval.harder=0", "learner.save_every=0")
BUSY = {"actor": ("generate",), "trainer": ("train", "snapshot")}  # states in which a part uses its device
_PUSH = {"push/stage": "push, stage", "push/pause": "push, pause", "push/load": "push, load (of the pause)"}
_SHOWN = 0.01  # of its time, that a process was in a state


def measure(job: Job) -> list[Reading]:
    """PartFailed if the run fails, or its ledger does not sum to wall time."""
    if not job.config.learner.trainers:
        raise ConfigError("learner.kind=none: there is no run with a learner to measure")
    return readings(train(job, SETTINGS), job.config.staleness.eta)


def readings(folder: Path, eta: int) -> list[Reading]:
    """Of a run that is over, from its folder."""
    steps, timeline = rows(folder), read(folder)
    skip = max(1, min(eta + 2, (len(steps) - 1) // 3))
    rate = steady(of_run(steps), skip)
    broken = [process.name for process in timeline.processes if abs(process.residue) > TOLERANCE]
    if broken:
        raise PartFailed("ledger", f"states of {', '.join(broken)} do not sum to wall time: azr report {folder}")
    summary = json.loads((folder / "summary.json").read_text())
    return [
        Reading(SECTION, "trained sequences", "sequences/s", rate.sequences_per_second),
        Reading(SECTION, "trained answer tokens", "tokens/s", rate.tokens_per_second),
        Reading(SECTION, "learner steps", "", len(steps)),
        Reading(SECTION, "whole run", "s", summary["seconds"]),
        *_pushes(steps),
        *use(timeline),
        *_states(timeline),
    ]


def use(timeline: Timeline) -> Iterator[Reading]:
    """Of each actor and trainer, the share of its time in which it used its device, by the ledger and, where there is
    a GPU, by NVML: the mean over its GPUs."""
    for process in timeline.processes:
        role = process.name.partition("-")[0]
        if role not in BUSY:
            continue
        yield Reading(SECTION, f"{process.name} {LEDGER}", "%", 100 * _share(process, BUSY[role]))
        seen = [gpu.busy for gpu in timeline.gpus if gpu.process == process.name]
        if seen:
            yield Reading(SECTION, f"{process.name} {NVML}", "%", 100 * sum(seen) / len(seen))


def _pushes(steps: Sequence[Mapping[str, Any]]) -> Iterator[Reading]:
    for key, what in _PUSH.items():
        found = [float(row[key]) for row in steps if key in row]
        if found:
            yield Reading(SECTION, what, "ms", 1e3 * median(found))


def _states(timeline: Timeline) -> Iterator[Reading]:
    for process in timeline.processes:
        for state, seconds in process.states.items():
            if process.wall and seconds / process.wall >= _SHOWN:
                yield Reading("time of", f"{process.name} {state}", "%", 100 * seconds / process.wall)


def _share(process: Process, states: Sequence[str]) -> float:
    return sum(process.states.get(state, 0.0) for state in states) / process.wall if process.wall else 0.0
