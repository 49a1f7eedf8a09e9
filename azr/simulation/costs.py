"""What things cost in a simulated run: from settings, or as a real run says.

A decoding step of an engine with c running sequences takes `decode + decode_each · c` seconds and gives each a token,
so an engine makes c / (decode + decode_each · c) tokens/s: few sequences are bound by latency, many by throughput.

`measured` reads a run folder: lengths, valid proposals and right answers, the seconds of a learner step per token,
stage and pause of a push, and the tokens that actors sampled per second of generating. It cannot tell latency from
throughput, so `decode` is 0 there; nor what executor and checkpoints cost, which keep their defaults. What processes on
shared cores take from each other is in these figures as it was on average.
"""

from __future__ import annotations

import dataclasses
import json
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from common.config import Config
from common.errors import ConfigError
from learner import trace

Row = dict[str, Any]
RAMP = 3  # the first third of the steps of a run, real or simulated, is not measured: pipelines fill


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, tokens and probabilities."""

    propose_length: float = 60.0  # tokens of a proposal, mean
    solve_length: float = 20.0  # of an answer
    spread: float = (
        1.0  # standard deviation of a length over its mean: 0 all alike, 1 exponential; a gamma distribution
    )
    prompt_length: float = 30.0
    valid: float = 0.3  # of proposals
    right: float = 0.3  # of answers
    decode: float = 0.004  # seconds of a decoding step, however few sequences run
    decode_each: float = 0.0001  # and for each of them
    job: float = 0.002  # seconds a program or the answers of a group occupy an executor shard
    group: float = 0.0  # seconds an actor takes for a group besides; they add up on its one thread
    step: float = 0.05  # seconds of a learner step, however small
    step_token: float = 5e-5  # and for each token of prompt or answer, over the ranks
    stage: float = 0.05  # seconds to bring the weights to all engines, decoding goes on
    stage_engine: float = 0.0  # and for each engine
    pause: float = 0.01  # seconds an engine stands still to load them
    save: float = 0.1  # seconds to write a checkpoint
    failure: float = 0.0  # mean seconds between deaths of an actor; 0: none dies
    restart: float = 30.0  # seconds until it is back

    def length(self, rng: random.Random, *, proposal: bool, longest: int) -> int:
        """Of a sampled response, cut at `longest`."""
        mean = self.propose_length if proposal else self.solve_length
        if mean > 0 and self.spread > 0:
            mean = rng.gammavariate(self.spread**-2, mean * self.spread**2)
        return max(1, min(longest, round(mean)))

    def with_settings(self, words: Sequence[str]) -> Costs:
        """`words`: key=value. ConfigError naming the keys there are."""
        known = {f.name for f in dataclasses.fields(self)}
        changes: dict[str, float] = {}
        for word in words:
            key, _, text = word.partition("=")
            if key not in known:
                raise ConfigError(f"no cost is called {key}; there are {', '.join(sorted(known))}")
            try:
                value = float(text)
            except ValueError:
                raise ConfigError(f"costs.{word}: {text!r} is no number") from None
            if not (value >= 0 and math.isfinite(value)):
                raise ConfigError(f"costs.{word}: must be 0 or more")
            changes[key] = value
        found = dataclasses.replace(self, **changes)
        if found.valid > 1 or found.right > 1:
            raise ConfigError("costs.valid and costs.right are probabilities: at most 1")
        if found.decode + found.decode_each <= 0:
            raise ConfigError("costs.decode and costs.decode_each cannot both be 0: tokens take time")
        return found


def rows(folder: Path) -> list[Row]:
    """The rows of the learner steps of a run, the last of each. ConfigError if the folder has none."""
    path = folder / "metrics.jsonl"
    if not path.exists():
        raise ConfigError(f"{folder} is no run folder: it has no metrics.jsonl")
    found = (json.loads(line) for line in path.read_text().splitlines() if line)
    steps = {row["step"]: row for row in found if "step" in row and "seconds" in row}
    if len(steps) < 2:
        raise ConfigError(f"{path} has {len(steps)} learner steps: too few to tell costs from")
    return [steps[step] for step in sorted(steps)]


def measured(folder: Path, config: Config) -> Costs:
    """What a run that is over, or under way, says of its costs."""
    steps = rows(folder)
    if not any("push/stage" in row for row in steps):
        raise ConfigError(
            f"{folder} is of a run that pushed no weights (learner.kind=none?): what that costs is unknown"
        )
    steps = steps[len(steps) // RAMP :]
    default, algorithm = Costs(), config.algorithm
    trained = sum(row["tokens"] + default.prompt_length * row["sequences"] for row in steps)
    types = len(algorithm.task_types)
    proposals, solves = types * algorithm.proposals, types * algorithm.solves
    length, valid = _mean(steps, "propose/", "/length"), _mean(steps, "propose/", "/valid")
    answers = valid * proposals * algorithm.samples + solves * algorithm.solve_samples
    return dataclasses.replace(
        default,
        propose_length=length,
        solve_length=(float(np.mean([row["tokens"] for row in steps])) - proposals * length) / max(answers, 1.0),
        valid=valid,
        right=_mean(steps, "solve/", "/accuracy"),
        decode=0.0,
        decode_each=1.0 / _rate(folder, steps[0]["time"], steps[-1]["time"]),
        step=0.0,
        step_token=config.learner.ranks * sum(row["seconds"] for row in steps) / trained,
        stage=float(np.mean([row["push/stage"] for row in steps if "push/stage" in row])),
        pause=float(np.mean([row["push/pause"] for row in steps if "push/pause" in row])),
    )


def _mean(steps: Iterable[Row], begin: str, end: str) -> float:
    found = [
        v for row in steps for k, v in row.items() if k.startswith(begin) and k.endswith(end) and k.count("/") == 2
    ]
    return float(np.mean(found)) if found else 0.0


def _rate(folder: Path, begin: float, end: float) -> float:
    """Tokens per second of an actor in state generate, between two moments of the wall clock."""
    events = trace.read(folder / "trace.json") if (folder / "trace.json").exists() else []
    tokens = sum(e["args"].get("tokens", 0) for e in events if e["ph"] == "C" and begin <= e["ts"] / 1e6 <= end)
    spans = [e for e in events if e["ph"] == "X" and e["name"] == "generate"]
    busy = sum(max(0.0, min(end, (e["ts"] + e["dur"]) / 1e6) - max(begin, e["ts"] / 1e6)) for e in spans)
    if tokens == 0 or busy == 0:
        raise ConfigError(f"{folder} has no trace of actors that generate: how fast they are cannot be told")
    return float(tokens / busy)
