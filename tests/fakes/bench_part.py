"""A part of `azr bench` as its suite meets it: the same command line and result, within a moment.

    python -m tests.fakes.bench_part [--broken PART] PART FOLDER REPEAT [--quick]

A rate is 100 in the first round and 10 less in each one after it, half of that in the loop. The PART of --broken fails
in its second round.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from azr.bench.figures import Reading
from azr.bench.part import READINGS

_NAMES = {"engine": "tokens", "loop": "tokens, an engine"}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--broken")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("part")
    parser.add_argument("folder", type=Path)
    parser.add_argument("repeat", type=int)
    given = parser.parse_args()
    if given.part == given.broken and given.repeat == 1:
        print("azr: learner: it fell over", file=sys.stderr)
        return 1
    with (given.folder / "order").open("a") as order:
        print(given.part, given.repeat, given.quick, file=order)
    value = (100.0 - 10 * given.repeat) / (2 if given.part == "loop" else 1)
    readings = [Reading(given.part, _NAMES.get(given.part, "rate"), "tokens/s", value)]
    folder = given.folder / f"{given.part}-{given.repeat}"
    folder.mkdir()
    (folder / READINGS).write_text(json.dumps([dataclasses.asdict(reading) for reading in readings]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
