"""What `azr bench` measures, as a check asks for it: medians by section and row, and targets for GPUs alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from azr.experiments.gpu import children
from azr.experiments.gpu.claims import Record, Request
from azr.experiments.gpu.settings import PRESET

GRACE = 10.0  # seconds in which it ends its processes
Medians = dict[tuple[str, str], float]


def bench(request: Request, name: str, only: Sequence[str], chosen: Sequence[str], seconds: float) -> Medians:
    """PartFailed if it could not be measured within `seconds`."""
    out, log = request.work / f"bench-{name}", request.work / f"bench-{name}.log"
    command = [sys.executable, "-m", "azr.cli", "bench", PRESET, *chosen, "--only", ",".join(only), "--out", str(out)]
    command += ["--repeats", "1"] if request.on_gpu else ["--quick"]
    children.perform([command], [log], children.environment(request.device), seconds, GRACE)
    written: dict[str, Any] = json.loads((out / "bench.json").read_text())
    return {(figure["section"], figure["what"]): figure["median"] for figure in written["figures"]}


def target(record: Record, request: Request, what: str, held: bool, detail: str) -> None:
    if request.on_gpu:
        record.claim(what, held, detail)
    else:
        record.not_run(what, f"targets are for GPUs; {detail}")
