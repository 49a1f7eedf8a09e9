"""Two training loops as `azr experiment peers` meets them, within a moment: `azr train`, and the worker that runs TRL.

    python -m tests.fakes.loops [--broken NAME,...] PRESET key=value ...    leaves a run folder
    python -m tests.fakes.loops [...] trl_worker.py WORK RESULT    writes a result

A step of ours takes 0.5 s, 0.25 s with cluster.pin; one of TRL 1 s, 0.75 s in parts of a quarter. Its first and last
steps are quicker or slower than the others. Runs of a NAME fail.
"""

from __future__ import annotations

import json
import sys
from itertools import accumulate
from pathlib import Path

from common.config import load


def train(settings: list[str]) -> None:
    broken: list[str] = []
    if settings[0] == "--broken":
        broken, settings = settings[1].split(","), settings[2:]
    config = load(settings[0], settings[1:])
    if config.run.name in broken:
        sys.exit("azr: executor-0: its process died")
    folder = Path(config.run.folder) / config.run.name
    folder.mkdir(parents=True)
    batch = {"groups": 24, "sequences": 192, "tokens": 1920}
    seconds = 0.25 if config.cluster.pin else 0.5
    rows = [{"step": step, "time": at, **batch} for step, at in enumerate(ends(config.learner.steps, seconds))]
    rows.append({"step": 0, "analysis/lost": 0})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def worker(work: Path, result: Path) -> None:
    asked = json.loads(work.read_text())
    sequences = asked["sequences"]
    found = [
        {"ends": ends(asked["steps"], seconds), "sequences": sequences, "tokens": 8.0}
        for seconds in (0.75 if variant["rows"] * 4 == sequences else 1.0 for variant in asked["variants"])
    ]
    result.write_text(json.dumps(found))


def ends(steps: int, seconds: float) -> list[float]:
    """When steps end of which all but the first and the last take `seconds`."""
    return list(accumulate([seconds * 10, *[seconds] * (steps - 2), seconds / 10]))


if __name__ == "__main__":
    if sys.argv[-3].endswith("trl_worker.py"):
        worker(Path(sys.argv[-2]), Path(sys.argv[-1]))
    else:
        train(sys.argv[1:])
