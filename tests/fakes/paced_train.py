"""`azr train` as the overlap experiment meets it: a run of known pace, told by the folder that it leaves at once.

    python -m tests.fakes.paced_train [--broken WORD] PRESET key=value ... | --resume RUN

A batch of 100 sequences takes 4 s to generate; 3.5 s to train with one thread and 1.5 s with two; and 0.5 s to push.
With η = 0 one comes after the other; else a batch is formed every 4.25 s and trained and pushed while the next is made.
A run whose name holds the WORD of --broken leaves what it has after a checkpoint, and fails.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from common.config import Config, load, to_yaml
from learner import trace
from learner.resume_point import record_checkpoint

GENERATE, TRAIN, PUSH, TOGETHER, SEQUENCES = 4.0, (3.5, 1.5), 0.5, 4.25, 100
PARTS = {trace.INTAKE: 1, "trainer-0": 2, "actor-0": 3}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broken", default="no such run")
    parser.add_argument("--resume", type=Path)
    parser.add_argument("settings", nargs="*")
    given = parser.parse_args()
    config = load(given.resume / "config.yaml" if given.resume else given.settings[0], given.settings[1:])
    folder = Path(config.run.folder) / config.run.name
    print("training", folder.name, "resumed" if given.resume else "begun")
    folder.mkdir(parents=True, exist_ok=given.resume is not None)
    (folder / "config.yaml").write_text(to_yaml(config))
    if given.broken in folder.name:
        record_checkpoint(folder, 1, "checkpoints/step-000001")
        print("azr: executor-0: its process died", file=sys.stderr)
        return 1
    steps = [{"step": step, "groups": 6, "sequences": SEQUENCES} for step in range(config.learner.steps)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    (folder / "trace.json").write_text(json.dumps(events(config)) + "\n")
    (folder / "summary.json").write_text(json.dumps({"version": config.learner.steps}))
    return 0


def events(config: Config) -> list[dict[str, Any]]:
    found = [{"ph": "M", "pid": pid, "args": {"name": name}} for name, pid in PARTS.items()]
    train = TRAIN[config.learner.threads - 1]
    lockstep = config.staleness.eta == 0
    found.append(_mark("version", 0.0, version=0, held=0))
    for step in range(config.learner.steps):
        begin = step * (GENERATE + train + PUSH if lockstep else TOGETHER)
        formed = begin + (GENERATE if lockstep else TOGETHER)
        over = formed + train + PUSH
        found += [
            _state("actor-0", "generate", begin, formed),
            _mark("batch", formed, step=step, actor=0),
            _state("trainer-0", "train", formed, formed + train),
            _mark("step", formed + train, step=step),
            _state("trainer-0", "wait-batch", formed + train, over + GENERATE if lockstep else formed + TOGETHER),
            _mark("version", over, version=step + 1, held=0),
        ]
        if lockstep:
            found.append(_state("actor-0", "wait-lease", formed, over))
    return found


def _state(part: str, name: str, begin: float, end: float) -> dict[str, Any]:
    return {"ph": "X", "name": name, "pid": PARTS[part], "ts": begin * 1e6, "dur": (end - begin) * 1e6}


def _mark(name: str, at: float, **args: int) -> dict[str, Any]:
    return {"ph": "i", "name": name, "pid": PARTS[trace.INTAKE], "ts": at * 1e6, "args": args}


if __name__ == "__main__":
    sys.exit(main())
