"""The command lines of `azr experiment`. Light, like azr.cli: each command imports what it needs when it runs.

A command ends with 1 if one of its runs failed; the report then tells which.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from azr.arguments import add_place, add_settings, split
from common.errors import ConfigError

if TYPE_CHECKING:
    Questions = argparse._SubParsersAction[argparse.ArgumentParser]

TINY = Path("tiny.yaml")


def add_experiments(questions: Questions) -> None:
    for add in (_add_learning, _add_staleness, _add_overlap, _add_peers):
        add(questions)


def _add_learning(questions: Questions) -> None:
    parser = questions.add_parser(
        "learning",
        help="what self-play teaches, against controls",
        description="Runs of CONFIG (tiny.yaml) over base seeds and RL seeds, and controls on the first base: shuffled "
        "rewards, a proposer that is not trained, tasks from the grammar, tasks proposed once by the base. Writes "
        "results.json, table.md, learning.svg and proposals.svg.",
    )
    add_settings(parser)
    parser.add_argument("--seeds", metavar="N", type=int, default=3, help="RL seeds (default: %(default)s)")
    parser.add_argument("--bases", metavar="M", type=int, default=2, help="base models (default: %(default)s)")
    parser.add_argument("--control-seeds", metavar="N", type=int, help="RL seeds of controls (default: as --seeds)")
    parser.add_argument("--steps", metavar="S", type=int, help="of training (default: as in CONFIG)")
    parser.add_argument("--only", metavar="CELL,...", help="only these of azr and the controls")
    add_place(parser, "runs/learning")
    parser.set_defaults(command=_learning)


def _learning(parsed: argparse.Namespace) -> int:
    from azr.experiments.learning import Plan, learning

    preset, overrides = split(parsed, fallback=TINY)
    cells = {} if parsed.only is None else {"only": tuple(parsed.only.split(","))}
    plan = Plan(parsed.seeds, parsed.bases, parsed.control_seeds, parsed.steps, **cells)
    return int(not learning(preset, overrides, plan, parsed.out, resume=parsed.resume))


def _add_staleness(questions: Questions) -> None:
    parser = questions.add_parser(
        "staleness",
        help="what samples of older weights cost, and which loss bears them",
        description="Runs of CONFIG (tiny.yaml) over η, losses, KV policies and RL seeds, with exact staleness, on one "
        "Ray and one set of engines. Writes runs.csv, results.json, table.md, two drawings and staleness.html.",
    )
    add_settings(parser)
    parser.add_argument("--etas", metavar="N,...", default="0,4,16", help="default: %(default)s")
    parser.add_argument(
        "--losses",
        metavar="LOSS[:MINIBATCHES],...",
        default="reinforce,ppo,decoupled:4",
        help="default: %(default)s",
    )
    parser.add_argument("--kv", metavar="POLICY,...", default="", help="recompute, keep, salt (default: as in CONFIG)")
    parser.add_argument("--seeds", metavar="N", type=int, default=3, help="RL seeds (default: %(default)s)")
    parser.add_argument("--steps", metavar="S", type=int, help="of training (default: as in CONFIG)")
    add_place(parser, "runs/staleness")
    parser.set_defaults(command=_staleness)


def _staleness(parsed: argparse.Namespace) -> int:
    from azr.experiments.staleness import Loss, Plan, staleness

    preset, overrides = split(parsed, fallback=TINY)
    try:
        etas = tuple(int(eta) for eta in parsed.etas.split(","))
    except ValueError:
        raise ConfigError(f"--etas={parsed.etas}: write numbers, separated by commas") from None
    losses = tuple(Loss.parse(loss) for loss in parsed.losses.split(","))
    plan = Plan(etas, losses, tuple(filter(None, parsed.kv.split(","))), parsed.seeds, parsed.steps)
    return int(not staleness(preset, overrides, plan, parsed.out, resume=parsed.resume))


def _add_overlap(questions: Questions) -> None:
    parser = questions.add_parser(
        "overlap",
        help="what generating and training at once brings on this machine",
        description="Runs of CONFIG (overlap.yaml) back to back, for each seed: lock-step, overlap, and lock-step with "
        "all cores in each phase. Writes results.json, runs.csv, table.md and overlap.svg.",
    )
    add_settings(parser)
    parser.add_argument("--pairs", metavar="N", type=int, default=3, help="seeds (default: %(default)s)")
    add_place(parser, "runs/overlap")
    parser.set_defaults(command=_overlap)


def _overlap(parsed: argparse.Namespace) -> int:
    from azr.experiments.overlap import Plan, overlap

    preset, overrides = split(parsed, fallback=Path("overlap.yaml"))
    return int(not overlap(preset, overrides, Plan(parsed.pairs), parsed.out, resume=parsed.resume))


def _add_peers(questions: Questions) -> None:
    parser = questions.add_parser(
        "peers",
        help="how fast it trains, against TRL",
        description="Train on the same prompts, answer lengths and cores with azr (CONFIG, default tiny.yaml, solving "
        "only) and with TRL's GRPOTrainer, each in the fastest of several ways, by turns. Needs the environment that "
        "scripts/peers makes. Writes results.json and table.md.",
    )
    add_settings(parser)
    parser.add_argument("--rounds", metavar="N", type=int, default=3, help="runs of each (default: %(default)s)")
    parser.add_argument("--steps", metavar="S", type=int, default=60, help="of a run (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("runs/peers"), help="default: %(default)s")
    parser.set_defaults(command=_peers)


def _peers(parsed: argparse.Namespace) -> int:
    from azr.experiments.peers import Plan, peers

    preset, overrides = split(parsed, fallback=TINY)
    return int(bool(peers(preset, overrides, Plan(parsed.rounds, parsed.steps), parsed.out).failures))
