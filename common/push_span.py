"""What a weight push cost one engine, phase by phase, as the actor measured it.

    stage   from the notice to the checksum that agreed: the receive, while decoding goes on
    pause   no token was produced; ends with the commit of the weights
    load    of the pause, the copying of weights into the model
    commit  from the notice until the probe was scored under the new weights; decoding goes on behind the pause

Not in the pause: with engine.kv=recompute the first decoding step behind it computes the keys and values anew.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

PHASES = ("stage", "pause", "load", "commit")


@dataclass(frozen=True, slots=True)
class PushSpan:
    """`begin`: seconds of the wall clock; `tokens`: decoded by this engine meanwhile, at least; counted for stages."""

    phase: str
    version: int
    begin: float
    seconds: float
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Spread:
    """Nearest-rank percentiles: each is a value that occurred, so p99 of fewer than 100 is the largest."""

    count: int
    p50: float
    p99: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """ValueError if there are none."""
        if not values:
            raise ValueError("no values have no percentiles")
        ranked = sorted(values)
        p50, p99 = (ranked[math.ceil(share * len(ranked)) - 1] for share in (0.5, 0.99))
        return cls(len(ranked), p50, p99, ranked[-1])


@dataclass(frozen=True, slots=True)
class PushCosts:
    """Of all pushes of all actors. `spreads`: seconds, of the phases that occurred."""

    spreads: dict[str, Spread]
    decoding: int  # stages in which tokens were decoded
    tokens: int  # decoded while staging

    @classmethod
    def of(cls, spans: Sequence[PushSpan]) -> PushCosts:
        seconds = {phase: [s.seconds for s in spans if s.phase == phase] for phase in PHASES}
        tokens = [s.tokens for s in spans if s.phase == "stage"]
        spreads = {phase: Spread.of(values) for phase, values in seconds.items() if values}
        return cls(spreads, sum(n > 0 for n in tokens), sum(tokens))
