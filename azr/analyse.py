"""The analysis process of a run: reads trained batches, writes a line of figures for each.

    python -m azr.analyse RUN_FOLDER        batches on standard input, JSON on standard output (learner/analyst.py)

It takes what time the machine has left (nice 19) and dies with the intake. Responses are decoded and parsed, never run,
and like the executor's checker it is confined before it meets them: no files, no network, its two pipes and no more.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

NICE = 19
MEMORY = 1 << 30  # bytes beyond what the process has when it is confined
_INPUT, _OUTPUT = 0, 1


def main(folder: Path) -> None:
    os.nice(NICE)
    warnings.simplefilter("ignore")  # of the parser, about programs

    from actors.codec import Codec
    from actors.triplets import PythonTriplets
    from azr.reader import Reader
    from common.config import load
    from executor import sandbox, seccomp
    from learner.analysis import figures
    from learner.analyst import read_batches
    from learner.program import distance, measure

    config = load(folder / "config.yaml")
    reader = Reader(Codec(config.model.path), PythonTriplets(config.environment))
    example = measure("def f(a):\n return a")
    assert example is not None and distance(example, example) == 0.0  # nothing is left to be loaded later

    only = sandbox.Filter(seccomp.execution_filter(sandbox.machine(), write_to=_OUTPUT, read_from=_INPUT))
    sandbox.confine(MEMORY)
    only.install()

    spent = 0.0
    for _, groups, shown in read_batches(sys.stdin.buffer):
        row: dict[str, Any]
        try:
            row = dict(figures([reader.episode(group, shown) for group in groups]))
        except Exception as error:  # noqa: BLE001 - the boundary of a process that can no longer write to its log
            row = {"error": f"{type(error).__name__}: {error}"}
        before, spent = spent, time.process_time()
        row["analysis/cpu_seconds"] = spent - before  # the first ones include the start
        os.write(_OUTPUT, json.dumps(row).encode() + b"\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
