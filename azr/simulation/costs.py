"""What things cost in a simulated run: from settings, or as a real run says.

A decoding step of an engine with c running sequences takes `decode + decode_each · c` seconds and gives each a token,
so an engine makes c / (decode + decode_each · c) tokens/s: few sequences are bound by latency, many by throughput.

Costs of a real run are in azr/simulation/measured.py.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from common.errors import ConfigError
from common.types import Kind

RAMP = 3  # the first third of the steps of a run, real or simulated, is not measured: pipelines fill


@dataclass(frozen=True, slots=True)
class Responses:
    """What is sampled for a kind."""

    length: float  # tokens, mean
    spread: float  # standard deviation of a length over its mean: 0 all alike, 1 exponential; a gamma distribution
    success: float  # probability that a proposal is valid, or an answer right

    def draw(self, rng: random.Random, longest: int) -> int:
        """The length of one, cut at `longest`."""
        mean = self.length
        if mean > 0 and self.spread > 0:
            mean = rng.gammavariate(self.spread**-2, mean * self.spread**2)
        return max(1, min(longest, round(mean)))


@dataclass(frozen=True, slots=True)
class Costs:
    """Seconds, tokens and probabilities. The first five hold for kinds that `kinds` does not have."""

    propose_length: float = 60.0  # tokens of a proposal, mean
    solve_length: float = 20.0  # of an answer
    spread: float = 1.0  # of lengths (Responses.spread)
    valid: float = 0.3  # of proposals
    right: float = 0.3  # of answers
    kinds: Mapping[Kind, Responses] = field(default_factory=dict)
    prompt_length: float = 30.0
    prefill: float = 0.0  # seconds from asking the engine to the first decoding step
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

    def responses(self, kind: Kind) -> Responses:
        if kind in self.kinds:
            return self.kinds[kind]
        length, success = (self.propose_length, self.valid) if kind.proposes else (self.solve_length, self.right)
        return Responses(length, self.spread, success)

    def with_settings(self, words: Sequence[str]) -> Costs:
        """`words`: key=value; one of the first five then holds for all kinds. ConfigError naming the keys there are."""
        known = {f.name for f in dataclasses.fields(self)} - {"kinds"}
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
        kinds = {kind: _changed(kind, found, changes) for kind, found in self.kinds.items()}
        found = dataclasses.replace(self, **changes, kinds=kinds)
        if found.valid > 1 or found.right > 1:
            raise ConfigError("costs.valid and costs.right are probabilities: at most 1")
        if found.decode + found.decode_each <= 0:
            raise ConfigError("costs.decode and costs.decode_each cannot both be 0: tokens take time")
        return found


def _changed(kind: Kind, found: Responses, changes: Mapping[str, float]) -> Responses:
    length, success = ("propose_length", "valid") if kind.proposes else ("solve_length", "right")
    return Responses(
        changes.get(length, found.length), changes.get("spread", found.spread), changes.get(success, found.success)
    )
