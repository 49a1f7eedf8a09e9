"""Weights pushed each way are the learner's: gloo, CUDA IPC, NCCL, and deltas over gloo and NCCL.

A learner and a real engine in processes of their own, several versions, requests in flight. After each push the
engine's log-probs are held against the learner's, and its weights, by digest, against those of the first way; at the
end tokens of answers into which a push fell are held against the versions that are said to have sampled them. On one
GPU NCCL needs a library that takes several ranks there (docs/gpu.md); it is looked for among the packages and
preloaded.
`python -m azr.experiments.gpu.check_push`
"""

from __future__ import annotations

import json
import sys
from statistics import median
from typing import Any

from azr.experiments.gpu import children
from azr.experiments.gpu.claims import Record, Request, main
from azr.experiments.gpu.pushes import VERSIONS, WAYS, Way
from azr.experiments.gpu.settings import settings

TELLING = 5.0  # times what engine and learner differ by, a version must move log-probs
APART = 3.0  # times as near to their own version tokens must be as to the one before or after
PAUSE = 0.1  # seconds, at most, by IPC
SMALL = 0.2  # of the weights, at most, that a delta of a hundredth may be
REQUESTS = {"cuda": 64, "cpu": 4}
SECONDS = 500.0
GRACE = 10.0  # seconds in which the engine's process ends the learner


def check(record: Record, request: Request) -> None:
    """Every way of pushing leaves the learner's weights in the engine, beside requests in flight."""
    ways, variables = [way for way in WAYS if way.transport == "gloo"], {}
    if request.on_gpu:
        library = children.nccl()
        ways = [way for way in WAYS if way.transport != "nccl" or library.path]
        variables = library.environment if library.path else {}
        for way in (way for way in WAYS if way not in ways):
            record.not_run(f"{way}: pushed", library.why_not)
    else:
        for way in (way for way in WAYS if way not in ways):
            record.not_run(f"{way}: pushed", "there is no GPU")
    folder = request.work / "push"
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / "push.json"
    chosen = settings(request, request.model("0.5b"))
    asked = {
        "settings": chosen,
        "ways": [(way.transport, way.delta) for way in ways],
        "requests": REQUESTS[request.device],
        "device": request.device,
    }
    spec.write_text(json.dumps(asked))
    command = [sys.executable, "-m", "azr.experiments.gpu.pushes", str(spec)]
    log, results = folder / "engine.log", folder / "pushes.json"
    try:
        children.perform([command], [log], children.environment(request.device) | variables, SECONDS, GRACE)
    finally:
        found = json.loads(results.read_text()) if results.exists() else {}
        judged(record, ways, found, on_gpu=request.on_gpu)


def judged(record: Record, ways: list[Way], found: dict[str, Any], *, on_gpu: bool) -> None:
    """The claims about what each way gave; `found` by its name."""
    first, reference = next(((name, told["digests"]) for name, told in found.items() if "failed" not in told), ("", []))
    for way in ways:
        told = found.get(str(way), {"failed": "not reached: a way before it failed"})
        if "failed" in told:
            record.claim(f"{way}: {VERSIONS + 1} versions pushed", False, told["failed"])
            continue
        pushes, digests = told["pushes"], told["digests"]
        versions = [push["version"] for push in pushes]
        record.claim(f"{way}: {VERSIONS + 1} versions pushed", versions == list(range(VERSIONS + 1)), f"{versions}")
        gap, least = max(push["probe_difference"] for push in pushes), min(told["moves"])
        record.claim(
            f"{way}: the engine's log-probs are the learner's",
            gap * TELLING < least,
            f"differ by {gap:.2g}, a version moves them by {least:.2g}",
        )
        record.claim(f"{way}: each version has weights of its own", len(set(digests)) == VERSIONS + 1)
        if str(way) != first:
            record.claim(f"{way}: the weights are, bit for bit, those that {first} left", digests == reference)
        _seams(record, f"{way}: tokens of answers under way are of the version they name", told["seams"], gap)
        later = pushes[1:]  # the first makes the group
        share = max(push["sent"] / push["whole"] for push in later)
        if way.delta:
            record.claim(f"{way}: little travels", 0 < share <= SMALL, f"{share:.3f} of the weights")
        pause = median(max(push["pauses"]) for push in later)
        if way.transport == "ipc" and on_gpu:
            record.claim(f"{way}: a pause of {PAUSE:g} s at most", pause <= PAUSE, f"{pause:.3f} s")
        record.figure(f"{way}: stage, median", 1e3 * median(push["stage"] for push in later), "ms")
        record.figure(f"{way}: pause, median", 1e3 * pause, "ms")
        record.figure(f"{way}: load (of the pause), median", 1e3 * median(max(push["loads"]) for push in later), "ms")
        record.figure(f"{way}: bytes sent, of the weights", 100 * share, "%")


def _seams(record: Record, what: str, seams: dict[str, Any], gap: float) -> None:
    """`gap`: by how much engine and learner differ where nothing is in doubt."""
    if not seams["seams"]:
        record.not_run(what, "no push fell into an answer")
        return
    held = seams["own"] * APART < seams["other"] and seams["worst"] <= gap * TELLING
    detail = (
        f"beside {seams['seams']} seams log-probs differ by {seams['own']:.2g} ({seams['worst']:.2g} at most) from "
    )
    record.claim(what, held, detail + f"those of their version, by {seams['other']:.2g} from those across the seam")


if __name__ == "__main__":
    sys.exit(main("push", check))
