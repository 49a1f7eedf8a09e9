"""A whole run, learner and engine on one GPU: every step trained, the ledger sums to wall time, nothing is left behind.

The model has the shape of Qwen2.5-0.5B and random weights; its answers are worth nothing, and what is trained is the
entropy bonus. `python -m azr.experiments.gpu.check_run`
"""

from __future__ import annotations

import math
import sys
from statistics import median

from azr.experiments.gpu.claims import Record, Request, main
from azr.experiments.gpu.settings import MOVING, PRESET, settings
from azr.experiments.gpu.whole_run import Run, perform
from azr.report import report
from common.config import load

STEPS = {"cuda": 20, "cpu": 3}
SECONDS = 480.0
MEDIANS = {
    "push/stage": "a push, stage",
    "push/pause": "a push, pause",
    "push/load": "a push, load (of the pause)",
    "seconds": "a learner step",
}


def check(record: Record, request: Request) -> None:
    """A whole run trains all its steps, pushes each version, accounts for its time and ends cleanly."""
    steps = STEPS[request.device]
    chosen = settings(request, request.model("0.5b"), *MOVING, f"learner.steps={steps}")
    run = perform(request, "run", chosen, {}, SECONDS)
    ended = "not over in time" if run.code is None else f"exit code {run.code}"
    record.claim("the run ended well", run.code == 0, "" if run.code == 0 else f"{ended}; {run.end}")
    judged(record, run, steps, load(PRESET, chosen).learner.probe_tolerance)
    for key, what in MEDIANS.items():
        if found := [float(row[key]) for row in run.steps if key in row]:
            record.figure(f"{what}, median", 1e3 * median(found), "ms")
    if run.summary:
        record.figure("whole run", run.summary["seconds"], "s")
        record.figure("trained sequences", run.summary["sequences_per_second"], "sequences/s")


def judged(record: Record, run: Run, steps: int, tolerance: float) -> None:
    """The claims about a run that is over."""
    trained = [int(row["step"]) for row in run.steps]
    record.claim(f"{steps} steps are trained, each once", trained == list(range(steps)), f"{len(trained)} rows")
    broken = [row["step"] for row in run.steps if not _moves(row)]
    moves = bool(trained) and not broken
    record.claim("every loss is finite and every gradient moves the weights", moves, f"not in {broken}" * bool(broken))
    version = run.summary.get("version")
    record.claim("the last version is in service", version == steps, f"version {version}")
    gaps = [float(row["push/probe_difference"]) for row in run.steps if "push/probe_difference" in row]
    worst = max(gaps, default=math.inf)
    record.claim("engine and learner agree after every push", worst <= tolerance, f"{worst:.2g}, allowed {tolerance:g}")
    sound = False
    if run.summary:
        text, sound = report(run.folder)
        print(text, flush=True)
    record.claim("the states of every process sum to its wall time", sound)
    record.claim(f"none of its {run.seen} processes is left", run.seen > 0 and not run.left, "; ".join(run.left))


def _moves(row: dict[str, float]) -> bool:
    loss, norm = row.get("learner/loss", math.nan), row.get("learner/grad_norm", math.nan)
    return math.isfinite(loss) and math.isfinite(norm) and norm > 0


if __name__ == "__main__":
    sys.exit(main("run", check))
