"""ZeRO stages 0 to 3 train alike: metrics of several steps and the weights after them.

On a CPU two ranks, in float32; on a GPU one rank, in bfloat16 with float32 masters, where stages add gradients up in
different orders and AdamW turns the sign of what is almost 0. `python -m azr.experiments.gpu.check_zero`
"""

from __future__ import annotations

import sys

from azr.experiments.gpu.claims import Record, Request, main
from azr.experiments.gpu.rank import Found, difference, trained
from azr.experiments.gpu.settings import MOVING, settings

STEPS = 3
FAST = ("learner.lr=1e-3",)  # so far from the first weights that bfloat16 shows it
COMPARED = ("loss", "grad_norm", "entropy", "surprisal")
TOLERANCE = {"cpu": 1e-4, "cuda": 2e-2}  # of metrics, relative
WEIGHTS = {"cpu": 1e-2, "cuda": 1e-1}  # of weights, relative to how far they have moved


def check(record: Record, request: Request) -> None:
    """ZeRO stages 0 to 3 give the same metrics and weights."""
    found = {stage: _run(request, stage) for stage in range(4)}
    reference = found[0]
    record.claim("every step has a gradient", all(m["grad_norm"] > 0 for m in reference.metrics))
    for stage in (1, 2, 3):
        gaps = {
            name: max(
                abs(a[name] - b[name]) / max(abs(b[name]), 1e-6)
                for a, b in zip(found[stage].metrics, reference.metrics, strict=True)
            )
            for name in COMPARED
        }
        worst = max(gaps, key=lambda name: gaps[name])
        allowed = TOLERANCE[request.device]
        record.claim(
            f"stage {stage}: metrics of {STEPS} steps are those of stage 0",
            gaps[worst] <= allowed,
            f"{worst} differs by {gaps[worst]:.1e} of itself, allowed {allowed:.0e}",
        )
        gap = difference(found[stage].samples, reference.samples, reference.before)
        allowed = WEIGHTS[request.device]
        record.claim(
            f"stage {stage}: weights after {STEPS} steps are those of stage 0",
            gap <= allowed,
            f"differ by {gap:.1e} of what they moved, allowed {allowed:.0e}",
        )
    for stage, run in found.items():
        if run.memory:
            record.figure(f"stage {stage}: most memory that torch allocated", run.memory / 2**30, "GiB")


def _run(request: Request, stage: int) -> Found:
    model = request.model("0.5b")
    more = (f"learner.zero_stage={stage}", f"learner.ranks={1 if request.on_gpu else 2}")
    return trained(request, f"zero-{stage}", settings(request, model, *MOVING, *FAST, *more), steps=STEPS)


if __name__ == "__main__":
    sys.exit(main("zero", check))
