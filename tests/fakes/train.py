"""`azr train` as an experiment meets it: the same command line and the same run folder, within a moment.

    python -m tests.fakes.train [--broken WORD] [--interrupted WORD] [--wait FIFO] PRESET key=value ... | --resume RUN

Half of the tasks are right at version 0, three of four with the thought begun; with honest rewards all are right at
the last version. A run whose name holds the WORD of --broken fails at once, that of --interrupted fails with a
checkpoint of step 1 and can be resumed. --wait writes its process id into the fifo, and waits for an end from outside.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from common.config import Config, load, to_yaml
from common.types import TASK_TYPES
from learner.evaluation import EvalSet
from learner.resume_point import record_checkpoint


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broken", default="no such run")
    parser.add_argument("--interrupted", default="no such run")
    parser.add_argument("--wait", type=Path)
    parser.add_argument("--resume", type=Path)
    parser.add_argument("settings", nargs="*")
    given = parser.parse_args()
    if given.wait:
        return wait(given.wait)
    config = load(given.resume / "config.yaml" if given.resume else given.settings[0], given.settings[1:])
    folder = Path(config.run.folder) / config.run.name
    print("training", folder.name, "resumed" if given.resume else "begun")
    if given.broken in folder.name:
        print("azr: executor-0: its process died\n  log: nowhere", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=given.resume is not None)
    (folder / "config.yaml").write_text(to_yaml(config))
    if given.interrupted in folder.name and not given.resume:
        record_checkpoint(folder, 1, "checkpoints/step-000001")
        return 1
    leave(folder, config)
    return 0


def leave(folder: Path, config: Config) -> None:
    """What a run that went to its end leaves of interest here."""
    last = config.learner.steps
    honest = not config.algorithm.shuffle_rewards
    with (folder / "evaluation.jsonl").open("a") as file:
        for version in (0, last):
            for eval_set in EvalSet:
                share = 1.0 if version and honest else 0.75 if eval_set.begun else 0.5
                for task_type in TASK_TYPES:
                    for task in range(config.eval.tasks):
                        row = {"version": version, "set": eval_set, "type": task_type, "key": f"{task}"}
                        file.write(json.dumps({**row, "right": task < share * config.eval.tasks}) + "\n")
    steps = [{"step": step, "groups": 6, "sequences": 6, "propose/deduction/valid": 0.9} for step in range(last)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in steps))
    record_checkpoint(folder, last, f"checkpoints/step-{last:06d}")
    (folder / "summary.json").write_text(json.dumps({"version": last, "seconds": 60.0}))


def wait(fifo: Path) -> int:
    """The fifo stays open for as long as this process lives."""
    with fifo.open("w") as out:
        out.write(f"{os.getpid()}\n")
        out.flush()
        try:
            signal.pause()
        except KeyboardInterrupt:
            out.write("interrupted\n")
            return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
