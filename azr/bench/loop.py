"""How fast engines generate inside the system: a run of `azr train` without a learner, read from what it leaves.

Tokens are those of requests that completed after the first fifth of the time, of all engines. Leases, admission,
executor and their processes are those of every run; no weights are pushed. What was sampled stays in the run's journal,
so that the engine alone can be given the same prompts (azr/bench/prompts.py).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from azr.bench.figures import Reading
from azr.bench.part import Job
from azr.experiments import child
from azr.simulation.measured import rows
from azr.simulation.stretch import Stretch
from common.config import Config
from common.errors import PartFailed
from learner import trace

SECTION = "loop"
SETTINGS = ("learner.kind=none", "logging.keep_discarded=true", "eval.tasks=0", "eval.harder=0", "engine.join_after=0")
SKIPPED = 0.2  # of the time
TRAIN = (sys.executable, "-m", "azr.cli", "train")
_STATES = ("generate", "wait-executor", "wait-lease", "idle", "weight-pause")


@dataclass(frozen=True)
class Rate:
    """Of all engines: answer tokens a second; sequences in the engines, with those that wait for a place; groups under
    way. `states`: share of the first actor's time."""

    tokens_per_second: float
    running: float
    open: float
    states: dict[str, float]
    engines: int = 1


def measure(job: Job) -> list[Reading]:
    """PartFailed if the run fails."""
    rate = of_run(train(job, settings(job.config)))
    return [
        Reading(SECTION, "tokens, all engines", "tokens/s", rate.tokens_per_second),
        Reading(SECTION, "tokens, an engine", "tokens/s", rate.tokens_per_second / rate.engines),
        Reading(SECTION, "sequences in an engine", "", rate.running / rate.engines),
        Reading(SECTION, "groups under way, an engine", "", rate.open / rate.engines),
        *[Reading(SECTION, f"actor-0 {state}", "%", 100 * share) for state, share in rate.states.items()],
    ]


def settings(config: Config) -> tuple[str, ...]:
    """Of a run of `config` without its learner: a GPU that was shared with it is then the engine's alone."""
    alone = ("cluster.placement=disjoint", "weights.transport=auto") if config.cluster.placement == "shared" else ()
    return (*SETTINGS, *alone)


def train(job: Job, settings: Sequence[str]) -> Path:
    """The folder of a run of the configuration that is measured; PartFailed if it fails."""
    folder = job.folder / "run"
    place = [f"run.folder={job.folder}", f"run.name={folder.name}", "run.incarnation=0"]
    log = job.folder / "train.log"
    if code := child.run([*TRAIN, str(job.folder.parent / "config.yaml"), *place, *settings], log):
        raise PartFailed("azr train", f"ended with exit code {code}: {child.last_line(log)}", log=str(log))
    return folder


def of_run(folder: Path) -> Rate:
    """Of a run without a learner, from its folder. ConfigError if it has no steps."""
    end, summary = rows(folder)[-1]["time"], json.loads((folder / "summary.json").read_text())
    begin = end - (1 - SKIPPED) * summary["rollout"]["seconds"]
    events = [e for e in trace.read(folder / "trace.json") if e["ph"] == "C" and e["name"] == "tokens"]
    tokens = sum(e["args"]["tokens"] for e in events if begin < e["ts"] / 1e6 <= end)
    stretch = Stretch(folder, begin, end)
    states = {state: stretch.seconds("actor-0", state) / stretch.length for state in _STATES}
    running, under_way = (stretch.costs[name] / stretch.length for name in ("generate/area", "episode/seconds"))
    return Rate(tokens / stretch.length, running, under_way, states, max(1, stretch.actors))
