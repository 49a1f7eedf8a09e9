"""How fast: `azr bench` against the targets of one GPU.

MFU of the learner at 16k tokens a micro-batch (formula: docs/bench.md), what padding wastes, and the engine inside the
loop over the engine alone. Of several ways to run the learner the best one counts, and all are told. On a CPU the same
is measured with tiny shapes, and targets are not held against it. `python -m azr.experiments.gpu.check_speed`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from azr.experiments.gpu import children
from azr.experiments.gpu.claims import Record, Request, main
from azr.experiments.gpu.settings import PRESET, settings
from common.errors import PartFailed

MFU = {"0.5b": 40.0, "3b": 50.0}  # per cent, at least
PADDING = 3.0  # per cent, at most
IN_LOOP = 0.95  # at least
SECONDS = 300.0  # of one measurement
WAYS: dict[str, dict[str, Sequence[str]]] = {
    "0.5b": {"plain": ("learner.head_tokens=0",), "compiled": ("learner.head_tokens=0", "learner.compile=true")},
    "3b": {
        "compiled": ("learner.compile=true", "learner.head_tokens=4096"),
        "checkpointed": ("learner.checkpoint_activations=true", "learner.head_tokens=0"),
    },
}
NO_TARGET = "targets are for GPUs"


def check(record: Record, request: Request) -> None:
    """The learner's MFU and padding, and the engine in the loop, meet their targets."""
    for shape, ways in WAYS.items():
        if shape == "0.5b" or request.on_gpu:
            _learner(record, request, shape, ways)
    # Both parts have an engine and no learner, so the engine has the GPU to itself.
    alone = ("cluster.placement=disjoint", "learner.steps=60") if request.on_gpu else ()
    found = _bench(request, "loop", ("loop", "engine"), settings(request, request.model("0.5b"), *alone))
    for section, what, unit in (
        ("engine", "tokens", "tokens/s"),
        ("loop", "tokens, an engine", "tokens/s"),
        ("loop", "of the engine alone", ""),
    ):
        record.figure(f"{section}: {what}", found[section, what], unit)
    ratio = found["loop", "of the engine alone"]
    _target(record, request, f"an engine in the loop gives {IN_LOOP} of itself alone", ratio >= IN_LOOP, f"{ratio:.3f}")


def _learner(record: Record, request: Request, shape: str, ways: dict[str, Sequence[str]]) -> None:
    best, padding = 0.0, []
    for way, more in ways.items():
        name = f"learner-{shape}-{way}"
        try:
            found = _bench(request, name, ("learner",), settings(request, request.model(shape), *more))
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
    _target(record, request, f"learner, {shape}: MFU of {MFU[shape]:g} %", best >= MFU[shape], f"best {best:.1f} %")
    if padding:
        worst = max(padding)
        _target(
            record, request, f"learner, {shape}: padding of {PADDING:g} % at most", worst <= PADDING, f"{worst:.2f} %"
        )


def _target(record: Record, request: Request, what: str, held: bool, detail: str) -> None:
    if request.on_gpu:
        record.claim(what, held, detail)
    else:
        record.not_run(what, f"{NO_TARGET}; {detail}")


def _bench(request: Request, name: str, only: Sequence[str], chosen: Sequence[str]) -> dict[tuple[str, str], float]:
    """Medians by section and row. PartFailed if it could not be measured."""
    out, log = request.work / f"bench-{name}", request.work / f"bench-{name}.log"
    command = [sys.executable, "-m", "azr.cli", "bench", PRESET, *chosen, "--only", ",".join(only), "--out", str(out)]
    command += ["--repeats", "1"] if request.on_gpu else ["--quick"]
    children.perform([command], [log], children.environment(request.device), SECONDS)
    written: dict[str, Any] = json.loads((out / "bench.json").read_text())
    return {(figure["section"], figure["what"]): figure["median"] for figure in written["figures"]}


if __name__ == "__main__":
    sys.exit(main("speed", check))
