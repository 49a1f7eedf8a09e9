"""How fast the learner is: `azr bench` against the targets of one GPU.

MFU at 16k tokens a micro-batch (formula: docs/bench.md), and what padding wastes. Of several ways to run the learner
the best one counts, and all are told. On a CPU the same is measured with tiny shapes, and targets are not held against
it. `python -m azr.experiments.gpu.check_speed`
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from azr.experiments.gpu.claims import Record, Request, main
from azr.experiments.gpu.measured import bench, target
from azr.experiments.gpu.settings import settings
from common.errors import PartFailed

MFU = {"0.5b": 40.0, "3b": 50.0}  # per cent, at least
PADDING = 3.0  # per cent, at most
SECONDS = 300.0  # of one measurement
WAYS: dict[str, dict[str, Sequence[str]]] = {
    "0.5b": {"plain": ("learner.head_tokens=0",), "compiled": ("learner.head_tokens=0", "learner.compile=true")},
    "3b": {
        "compiled": ("learner.compile=true", "learner.head_tokens=4096"),
        # Where the other has no room, as on 80 GiB.
        "checkpointed": ("learner.compile=true", "learner.head_tokens=4096", "learner.checkpoint_activations=true"),
    },
}


def check(record: Record, request: Request) -> None:
    """The learner's MFU and padding meet their targets."""
    for shape, ways in WAYS.items():
        if shape == "0.5b" or request.on_gpu:
            _learner(record, request, shape, ways)


def _learner(record: Record, request: Request, shape: str, ways: dict[str, Sequence[str]]) -> None:
    best, padding = 0.0, []
    for way, more in ways.items():
        name = f"learner-{shape}-{way}"
        try:
            found = bench(request, name, ("learner",), settings(request, request.model(shape), *more), SECONDS)
        except PartFailed as error:
            record.not_run(f"learner, {shape}, {way}", str(error))
            continue
        for what, unit in (
            ("tokens (prompts and answers)", "tokens/s"),
            ("model FLOPs", "TFLOP/s"),
            ("MFU", "%"),
            ("padding", "%"),
            ("most GPU memory of rank 0", "GiB"),
        ):
            if ("learner", what) in found:
                record.figure(f"learner, {shape}, {way}: {what}", found["learner", what], unit)
        best = max(best, found.get(("learner", "MFU"), 0.0))
        padding.append(found["learner", "padding"])
    record.claim(f"learner, {shape}: measured", bool(padding))
    target(record, request, f"learner, {shape}: MFU of {MFU[shape]:g} %", best >= MFU[shape], f"best {best:.1f} %")
    if padding:
        worst = max(padding)
        target(
            record, request, f"learner, {shape}: padding of {PADDING:g} % at most", worst <= PADDING, f"{worst:.2f} %"
        )


if __name__ == "__main__":
    sys.exit(main("speed", check))
