"""How fast a run went, and what kept it from going faster, over the steps at which it had found its pace.

The first steps are cut: seeds, caches and, with η > 0, the lead of the actors. So is what follows the last batch that
the actors had to make, when only the learner has work. In between, from the end of one learner step to the end of
another, batches formed and batches trained come to the same but for a lead that grows or shrinks; `gained` tells it.

Lock-step runs (η = 0) divide without a rest into G, from a version in service (the first lease that it grants) to its
batch (the last group accepted), and T, from there to the next version in service: settling, training, push.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from azr.critical_path import critical_path
from azr.timeline import Timeline, load_rows, read
from common.errors import PartFailed


@dataclass(frozen=True, slots=True)
class Pace:
    """Of `steps` learner steps in `seconds`, with `sequences` trained in them.

    `generating` and `training`: G and T, seconds per step, of a lock-step run; else 0. `gained`: batches formed beyond
    those trained. `states[process][state]` and `path[part and state]` are seconds per step; the latter sum to the step
    (azr/critical_path.py).
    """

    steps: int
    seconds: float
    sequences: int
    generating: float
    training: float
    gained: int
    states: dict[str, dict[str, float]]
    path: dict[str, float]

    @property
    def rate(self) -> float:
        """Trained sequences a second."""
        return self.sequences / self.seconds

    @property
    def step(self) -> float:
        """Seconds."""
        return self.seconds / self.steps


def measure(run: Path, warmup: int, *, lockstep: bool) -> Pace:
    """Of the run in folder `run`, after `warmup` steps. PartFailed if too little is left."""
    found = pace(read(run), load_rows(run / "metrics.jsonl"), warmup, lockstep=lockstep)
    if found is None:
        raise PartFailed(
            "experiment", f"{run}: fewer than two steps between {warmup} and its last batch", hint="more learner.steps"
        )
    return found


def pace(timeline: Timeline, rows: Sequence[Mapping[str, float]], warmup: int, *, lockstep: bool) -> Pace | None:
    """`rows` of metrics.jsonl. None if too little is left; PartFailed if marks or rows of its steps are missing."""
    batches = {mark.args["step"]: mark.at for mark in timeline.marks if mark.name == "batch"}
    ends = {mark.args["step"]: mark.at for mark in timeline.marks if mark.name == "step"}
    last_formed = max(batches.values(), default=0.0)
    counted = sorted(step for step, at in ends.items() if step >= warmup - 1 and at < last_formed)
    if len(counted) < 3:
        return None
    first, last = counted[0], counted[-1]
    begin, end, steps = ends[first], ends[last], last - first
    trained = range(first + 1, last + 1)
    sizes = {int(row["step"]): int(row["sequences"]) for row in rows if "sequences" in row}
    if lacking := [step for step in trained if step not in sizes]:
        raise PartFailed("experiment", f"metrics.jsonl lacks step {lacking[0]}", hint="make the run again")
    generating, training = _phases(timeline, batches, trained) if lockstep else (0.0, 0.0)
    cut = timeline.between(begin, end)
    path = critical_path(cut)
    return Pace(
        steps,
        end - begin,
        sum(sizes[step] for step in trained),
        generating,
        training,
        sum(begin < at <= end for at in batches.values()) - steps,
        {p.name: {state: seconds / steps for state, seconds in p.states.items()} for p in cut.processes},
        {f"{s.part} {s.state}": s.seconds / steps for s in path.stretches} if path else {},
    )


def _phases(timeline: Timeline, batches: Mapping[int, float], steps: Sequence[int]) -> tuple[float, float]:
    versions = {mark.args["version"]: mark.at for mark in timeline.marks if mark.name == "version"}
    for name, marks, wanted in (("batch", batches, steps), ("version", versions, [*steps, steps[-1] + 1])):
        if lacking := [number for number in wanted if number not in marks]:
            raise PartFailed("experiment", f"its trace lacks the mark of {name} {lacking[0]}", hint="make it again")
    generating = fmean(batches[step] - versions[step] for step in steps)
    return generating, fmean(versions[step + 1] - batches[step] for step in steps)
