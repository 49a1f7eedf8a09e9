"""The command lines of experiments that are not the learning experiment. Light, like azr.cli."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Questions = argparse._SubParsersAction[argparse.ArgumentParser]

Settings = Callable[[argparse.ArgumentParser], None]
Split = Callable[..., tuple[Path, list[str]]]


def add_peers(questions: Questions, add_settings: Settings, split: Split) -> None:
    """`add_settings` and `split`: how a command takes CONFIG and key=value, and how they are told apart."""
    peers = questions.add_parser(
        "peers",
        help="how fast it trains, against TRL",
        description="Train on the same prompts, answer lengths and cores with azr (CONFIG, default tiny.yaml, solving "
        "only) and with TRL's GRPOTrainer, each in the fastest of several ways, by turns. Needs the environment that "
        "scripts/peers makes. Writes results.json and table.md.",
    )
    add_settings(peers)
    peers.add_argument("--rounds", metavar="N", type=int, default=3, help="runs of each (default: %(default)s)")
    peers.add_argument("--steps", metavar="S", type=int, default=60, help="of a run (default: %(default)s)")
    peers.add_argument("--out", metavar="DIR", type=Path, default=Path("runs/peers"), help="default: %(default)s")

    def command(parsed: argparse.Namespace) -> int:
        from azr.experiments.peers import Plan
        from azr.experiments.peers import peers as measure

        preset, overrides = split(parsed, fallback=Path("tiny.yaml"))
        measure(preset, overrides, Plan(parsed.rounds, parsed.steps), parsed.out)
        return 0

    peers.set_defaults(command=command)
