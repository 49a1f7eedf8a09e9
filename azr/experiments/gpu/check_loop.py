"""The engine inside the loop over the engine alone, by `azr bench`: what leases, admission and executor cost it.

Neither part has a learner, so the engine has the GPU to itself. On a CPU the target is not held against it.
`python -m azr.experiments.gpu.check_loop`
"""

from __future__ import annotations

import sys

from azr.experiments.gpu.claims import Record, Request, main
from azr.experiments.gpu.measured import bench, target
from azr.experiments.gpu.settings import settings

IN_LOOP = 0.95  # at least
SECONDS = 420.0
# Two starts of an engine, a minute each, and as long of each at 50k tokens/s.
ALONE = ("cluster.placement=disjoint", "learner.steps=24")


def check(record: Record, request: Request) -> None:
    """The engine in the loop gives almost what it gives alone."""
    alone = ALONE if request.on_gpu else ()
    found = bench(request, "loop", ("loop", "engine"), settings(request, request.model("0.5b"), *alone), SECONDS)
    for section, what, unit in (
        ("engine", "tokens", "tokens/s"),
        ("loop", "tokens, an engine", "tokens/s"),
        ("loop", "of the engine alone", ""),
    ):
        record.figure(f"{section}: {what}", found[section, what], unit)
    ratio = found["loop", "of the engine alone"]
    target(record, request, f"an engine in the loop gives {IN_LOOP} of itself alone", ratio >= IN_LOOP, f"{ratio:.3f}")


if __name__ == "__main__":
    sys.exit(main("loop", check))
