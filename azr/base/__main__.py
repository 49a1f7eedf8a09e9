"""`python -m azr.base --out models/tiny --steps 4000`: make the tiny base model."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from azr.base import build
from common.config import ModelConfig


def main() -> int:
    defaults = ModelConfig()
    parser = argparse.ArgumentParser(prog="python -m azr.base", description="Make the tiny base model.")
    parser.add_argument("--out", type=Path, default=Path(defaults.path), help="folder to make (%(default)s)")
    parser.add_argument("--steps", type=int, default=defaults.base_steps, help="optimiser steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    try:
        build(arguments.out, steps=arguments.steps, seed=arguments.seed)
    except FileExistsError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
