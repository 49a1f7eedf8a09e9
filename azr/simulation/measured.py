"""Costs of a simulation, as a real run says.

A run folder tells, of the steps after the first third: lengths and their spread, valid proposals and right answers by
kind; how long a request waits before it decodes, and a decoding step takes by how many sequences run, from sums over
the requests of all actors (actors/cost_sums.py); the seconds of a learner step with its snapshot, per token; of a
checkpoint, a push and its pause; and what an executor job and the rest of a group take. The last two are measured with
the time they wait for each other, which is taken out as if they came at random: S = W / (1 + W · rate).

What it does not tell keeps its default. What processes on shared cores take from each other is in these figures as it
was on average.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from azr.simulation.costs import RAMP, Costs, Responses
from azr.simulation.stretch import Stretch
from common.config import Config
from common.errors import ConfigError
from common.types import Kind

Row = dict[str, Any]


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
    default = Costs()
    stretch = Stretch(folder, steps[0]["time"], steps[-1]["time"])
    if not stretch.costs["generate/tokens"]:
        raise ConfigError(f"{folder}/trace.json has no requests of actors: how fast they are cannot be told")
    pushes = [row for row in steps if "push/stage" in row]
    pause = float(np.mean([row["push/pause"] for row in pushes]))
    busy = stretch.seconds("actor-", "generate", "weight-pause")
    prefill, decode, each = _decoding(stretch.costs, max(0.5 * busy, busy - pause * len(pushes) * stretch.actors))
    trained = sum(row["tokens"] + default.prompt_length * row["sequences"] for row in steps[1:])
    job, group = _rest(stretch, config)
    saves = stretch.count("trainer-0", "save")
    return dataclasses.replace(
        default,
        kinds={kind: found for kind in config.algorithm.streams if (found := _responses(steps, kind)) is not None},
        prefill=prefill,
        decode=decode,
        decode_each=each,
        job=job,
        group=group,
        step=0.0,
        step_token=config.learner.ranks * stretch.seconds("trainer-0", "train", "snapshot") / trained,
        stage=float(np.mean([row["push/stage"] for row in pushes])),
        pause=pause,
        save=stretch.seconds("trainer-0", "save") / saves if saves else default.save,
    )


def _responses(steps: Sequence[Row], kind: Kind) -> Responses | None:
    """None if nothing of this kind was sampled. Rows count alike."""
    found = [row for row in steps if f"{kind}/length" in row]
    if not found:
        return None
    lengths = np.array([row[f"{kind}/length"] for row in found])
    squares = np.array([row.get(f"{kind}/length_deviation", 0.0) for row in found]) ** 2 + lengths**2
    mean = float(lengths.mean())
    success = f"{kind}/valid" if kind.proposes else f"{kind}/accuracy"
    spread = math.sqrt(max(0.0, float(squares.mean()) - mean**2)) / mean
    return Responses(mean, spread, float(np.mean([row[success] for row in found])))


def _decoding(sums: Counter[str], busy: float) -> tuple[float, float, float]:
    """Seconds before a request decodes, of a decoding step, and for each sequence of it; actors decoded for `busy`.

    A sample of l tokens is in the engine for d + s l seconds, its request for d + s L. Over all samples, the first sum
    to the integral of sequences over time (Little's law) and the second to the sum of nS, which gives d and s. How much
    of s depends on the number of sequences is a least-squares fit of S − d = L (a + b c), with weights 1/L. Sums and
    area are of answered requests alone: what cancelled ones took of the area is out of it as nearly as is known
    (actors/cost_sums.py), and c are all that ran.
    """
    samples, tokens, area = (sums[f"generate/{name}"] for name in ("samples", "tokens", "area"))
    longest, waited = sums["generate/samples_steps"], sums["generate/samples_seconds"]
    steps, running, squares = (sums[f"generate/{name}"] for name in ("steps", "steps_running", "steps_running2"))
    most = area / tokens  # if nothing came before decoding
    step = (waited - area) / (longest - tokens) if longest > tokens else most
    step = min(max(step, 0.01 * most), most)
    before = (area - step * tokens) / samples
    seconds = sums["generate/seconds"] - before * sums["generate"]
    crossed = sums["generate/seconds_running"] - before * sums["generate/running"]
    varied = steps * squares - running**2
    each = (steps * crossed - running * seconds) / varied if varied > 1e-6 * steps * squares else 0.0
    share = min(max(each * running / seconds, 0.0), 1.0) if seconds > 0 else 0.0
    decoding = step * tokens / busy  # sequences, on average
    return before, (1.0 - share) * step, share * step / decoding


def _rest(stretch: Stretch, config: Config) -> tuple[float, float]:
    """Seconds of an executor shard for all that is asked after a request to the engine (several jobs, one after the
    other), and of an actor for a group besides generating and waiting for the executor."""
    sums, shards, actors = stretch.costs, config.executor.shards, max(stretch.actors, 1)
    jobs, requests, groups = (max(sums[name], 1.0) for name in ("executor", "generate", "episode"))
    inside = sum(sums[f"{what}/seconds"] for what in ("generate", "executor")) + sums["generate/lost"]
    besides = sums["episode/seconds"] - inside
    return (
        jobs / requests * _alone(sums["executor/seconds"] / jobs, jobs / stretch.length / shards),
        _alone(max(0.0, besides) / groups, groups / stretch.length / actors),
    )


def _alone(seconds: float, rate: float) -> float:
    """How long one takes by itself if, with its wait for those before it, it takes `seconds` and `rate` come a second
    at random (M/M/1)."""
    return seconds / (1.0 + seconds * rate)
