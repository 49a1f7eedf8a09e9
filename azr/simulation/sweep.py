"""`azr simulate`: runs over numbers of actors, and what they say: a table, simulation.json and simulation.svg.

The knee is the least number of actors with 90 % of the best rate: more of them wait more than they add.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from azr.experiments.plot import COLOURS, Line, Panel, svg
from azr.simulation.costs import RAMP, Costs
from azr.simulation.measured import measured, rows
from azr.simulation.simulate import Outcome, simulate
from common.config import Config
from common.errors import ConfigError

KNEE = 0.9
_HEAD = "actors  sequences/s  staleness  95 %  trainer waits  actors wait  executor busy  dropped"


def sweep(
    config: Config,
    costs: Costs,
    actors: Sequence[int],
    out: Path,
    real: Path | None = None,
    say: Callable[[str], None] = print,
) -> list[Outcome]:
    """Simulate with each number of actors and write what came of it to `out`. `real`: a run to show beside it."""
    if not actors or min(actors) < 1:
        raise ConfigError("--actors are one or more numbers of at least 1, separated by commas")
    if not config.learner.trainers:
        raise ConfigError("learner.kind=none leaves no learner to simulate: set learner.kind=deepspeed")
    out.mkdir(parents=True, exist_ok=True)
    say(_HEAD)
    outcomes: list[Outcome] = []
    for count in sorted(set(actors)):
        began = time.process_time()
        engine = dataclasses.replace(config.engine, actors=count)
        outcomes.append(simulate(dataclasses.replace(config, engine=engine), costs))
        say(f"{line(outcomes[-1])}   ({time.process_time() - began:.1f} s of CPU)")
    at = knee(outcomes)
    say(f"knee: {at} actors reach {KNEE:.0%} of the best rate")
    told: dict[str, Any] = {"costs": dataclasses.asdict(costs), "knee": at, "outcomes": [to_json(o) for o in outcomes]}
    if real is not None:
        told["real"] = found = of_run(real)
        rate, age = found["sequences_per_second"], found["mean_staleness"]
        say(f"the run:  {rate:9.1f}  {age:9.2f}   ({found['actors']} actors; {real})")
    (out / "simulation.json").write_text(json.dumps(told, indent=1) + "\n")
    (out / "simulation.svg").write_text(drawn(outcomes))
    say(f"{out / 'simulation.json'}, {out / 'simulation.svg'}")
    return outcomes


def knee(outcomes: Sequence[Outcome]) -> int:
    best = max(outcome.sequences_per_second for outcome in outcomes)
    return min(o.actors for o in outcomes if o.sequences_per_second >= KNEE * best)


def line(o: Outcome) -> str:
    waits = _waiting(o)
    return (
        f"{o.actors:6}  {o.sequences_per_second:11.1f}  {o.mean_staleness:9.2f}  {o.quantile(0.95):4}  "
        f"{o.trainer.get('wait-batch', 0.0):13.0%}  {waits:11.0%}  {o.executor:13.0%}  {o.dropped:7.1%}"
    )


def to_json(outcome: Outcome) -> dict[str, Any]:
    return {**dataclasses.asdict(outcome), "mean_staleness": outcome.mean_staleness}


def of_run(folder: Path) -> dict[str, Any]:
    """Rate and staleness of a real run, measured as those of a simulated one."""
    steps = rows(folder)
    kept = steps[len(steps) // RAMP + 1 :]
    seconds = kept[-1]["time"] - steps[len(steps) // RAMP]["time"]
    tokens = sum(row["tokens"] for row in kept)
    summary = folder / "summary.json"
    shares = json.loads(summary.read_text()).get("ledger", {}) if summary.exists() else {}
    return {
        "sequences_per_second": sum(row["sequences"] for row in kept) / seconds,
        "mean_staleness": sum(row["staleness/mean"] * row["tokens"] for row in kept) / tokens,
        "actors": sum(name.startswith("actor-") for name in shares) or 1,
    }


def prepared(config: Config, words: Sequence[str], real: Path | None) -> Costs:
    """Costs of `real`, or else the default, with the settings `words`."""
    return (measured(real, config) if real is not None else Costs()).with_settings(words)


def drawn(outcomes: Sequence[Outcome]) -> str:
    """Over the number of actors (logarithmic): the rate, who waits, and staleness."""
    places = [math.log10(o.actors / outcomes[0].actors) for o in outcomes]
    marks = [(x, str(o.actors)) for x, o in zip(places, outcomes, strict=True)]
    spread = [mark for i, mark in enumerate(marks) if i in (0, len(marks) - 1) or len(marks) <= 8 or i % 2 == 0]

    def curve(values: Sequence[float], colour: str, name: str) -> Line:
        return Line(list(zip(places, values, strict=True)), colour, name=name)

    rates = [o.sequences_per_second for o in outcomes]
    ages = [o.mean_staleness for o in outcomes]
    tails = [float(o.quantile(0.95)) for o in outcomes]
    panels = [
        Panel("sequences per second", [curve(rates, COLOURS[0], "sequences/s")], max(rates) or 1.0),
        Panel(
            "share of time",
            [
                curve([o.trainer.get("wait-batch", 0.0) for o in outcomes], COLOURS[1], "trainer waits"),
                curve([_waiting(o) for o in outcomes], COLOURS[2], "actors wait"),
                curve([o.executor for o in outcomes], COLOURS[3], "executor busy"),
            ],
        ),
        Panel(
            "staleness, versions",
            [curve(tails, COLOURS[4], "95 % of tokens"), curve(ages, COLOURS[0], "mean staleness")],
            max(*tails, *ages, 1.0),
        ),
    ]
    return svg(panels, places[-1], "actors", spread)


def _waiting(outcome: Outcome) -> float:
    """Share of the time of actors in which nothing runs for want of a lease, or of anything to do."""
    return outcome.actor.get("wait-lease", 0.0) + outcome.actor.get("idle", 0.0)
