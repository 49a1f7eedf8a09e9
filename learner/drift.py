"""How far the samples of a step may be from the policy it trains before a run says so, or ends.

Two figures of learner/step_metrics.py are watched. `mismatch`: mean |log ratio| on tokens that the step's own weights
sampled; it should be 0 and is what engine and learner compute differently. `effective_sample_size`: what the ratios of
all tokens leave of a batch; it sinks with staleness (VCPO, arXiv 2602.17616, finds that it foretells collapse).
"""

from __future__ import annotations

from collections.abc import Mapping

from common.errors import PartFailed
from common.off_policy import OffPolicyConfig

_CAUSES = {
    "mismatch": "engine and learner give other probabilities to the same weights: compare engine.kv=recompute, "
    "engine.prefix_caching=false and one dtype for both",
    "ess": "a smaller staleness.eta, learner.lr or learner.minibatches, or a loss that bounds its weights",
}


class DriftWatch:
    """Of one trainer rank; metrics are those of the whole batch, so all ranks come to the same end."""

    def __init__(self, settings: OffPolicyConfig, part: str) -> None:
        self._settings = settings
        self._part = part
        self._warned: set[str] = set()

    def check(self, step: int, metrics: Mapping[str, float]) -> list[str]:
        """What is to be warned of, each figure once. PartFailed if the run is to end."""
        limits = self._settings
        found: list[str] = []
        if metrics["fresh_tokens"]:
            value = metrics["mismatch"]
            text = f"mismatch of {value:.3g} nats per token at staleness 0"
            if 0 < limits.stop_mismatch < value:
                raise self._stop(step, "mismatch", f"{text} is over learner.stop_mismatch={limits.stop_mismatch:g}")
            if 0 < limits.warn_mismatch < value:
                found += self._once(step, "mismatch", f"{text} is over learner.warn_mismatch={limits.warn_mismatch:g}")
        if metrics["tokens"]:
            value = metrics["effective_sample_size"]
            text = f"effective sample size of {value:.3g} of the tokens"
            if value < limits.stop_ess:
                raise self._stop(step, "ess", f"{text} is under learner.stop_ess={limits.stop_ess:g}")
            if value < limits.warn_ess:
                found += self._once(step, "ess", f"{text} is under learner.warn_ess={limits.warn_ess:g}")
        return found

    def _once(self, step: int, figure: str, text: str) -> list[str]:
        if figure in self._warned:
            return []
        self._warned.add(figure)
        return [f"step {step}: {text}; try: {_CAUSES[figure]}"]

    def _stop(self, step: int, figure: str, text: str) -> PartFailed:
        return PartFailed(
            self._part, f"step {step}: {text}", hint=f"{_CAUSES[figure]}; the last checkpoint is untouched"
        )
