"""One repeat of one part of `azr bench`, in a process of its own: python -m azr.bench.part PART FOLDER REPEAT.

FOLDER is that of the whole measurement. Its config.yaml says what is measured; PART-REPEAT in it takes what the part
writes, and readings.json there is its result, which is there only if all went well. What a part cannot do it says as an
AzrError on standard error, with an exit code other than 0.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from azr.bench.figures import Reading
from common.config import Config, load

# A module each, with measure(job) → readings. In the order in which they take turns.
PARTS = {
    "loop": "azr.bench.loop",
    "engine": "azr.bench.engine",
    "learner": "azr.bench.learner",
    "push": "azr.bench.push",
    "run": "azr.bench.run",
}
READINGS = "readings.json"


@dataclass(frozen=True, slots=True)
class Job:
    """`folder` is the part's own; `quick`: as little as shows that it works."""

    config: Config
    folder: Path
    repeat: int
    quick: bool = False

    def beside(self, part: str) -> Path:
        """The folder of another part in the same round, whether it ran or not."""
        return self.folder.with_name(f"{part}-{self.repeat}")


def read(folder: Path) -> list[Reading]:
    """What the part wrote whose folder this is."""
    return [Reading(**fields) for fields in json.loads((folder / READINGS).read_text())]


def main(arguments: Sequence[str] | None = None) -> int:
    from azr.cli import run

    parser = argparse.ArgumentParser(prog="azr.bench.part")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("repeat", type=int)
    parser.add_argument("--quick", action="store_true")
    parsed = parser.parse_args(arguments)
    return run(lambda: _measure(parsed))


def _measure(parsed: argparse.Namespace) -> int:
    folder = parsed.folder / f"{parsed.part}-{parsed.repeat}"
    folder.mkdir()
    job = Job(load(parsed.folder / "config.yaml"), folder, parsed.repeat, parsed.quick)
    readings = importlib.import_module(PARTS[parsed.part]).measure(job)
    (folder / READINGS).write_text(json.dumps([dataclasses.asdict(reading) for reading in readings], indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
