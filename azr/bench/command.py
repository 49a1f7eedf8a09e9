"""The command line of `azr bench`. Light, like azr.cli: it imports what it needs when it runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from azr.arguments import add_settings, split

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]


def add_bench(commands: Commands) -> None:
    parser = commands.add_parser(
        "bench",
        help="measure where the time goes: engine, loop, learner, pushes, whole run",
        description="Measure the parts of CONFIG on this machine, each in a process of its own, in turns. Prints a "
        "table and writes bench.json, bench.txt and bench.svg; docs/bench.md says what each row means. Ends with 1 if "
        "a part could not be measured. learner.steps=N (20) is the length of runs.",
    )
    add_settings(parser)
    parser.add_argument("--only", metavar="PART,...", help="of engine, loop, learner, push, run (default: all)")
    parser.add_argument("--repeats", metavar="N", type=int, help="rounds (default: 3; 1 with --quick)")
    parser.add_argument("--quick", action="store_true", help="as little as shows that it works; figures mean little")
    parser.add_argument("--out", metavar="DIR", type=Path, help="default: runs/bench-DATE-TIME")
    parser.set_defaults(command=_bench)


def _bench(parsed: argparse.Namespace) -> int:
    from azr.bench.suite import Plan, bench

    preset, overrides = split(parsed)
    only = {} if parsed.only is None else {"only": tuple(parsed.only.split(","))}
    repeats = (1 if parsed.quick else 3) if parsed.repeats is None else parsed.repeats
    return int(not bench(preset, overrides, Plan(repeats, quick=parsed.quick, **only), parsed.out))
