"""How many batches generation may run ahead of training, learned from the run itself: η of `staleness.auto`.

Pure logic; a decision after a learner step at most, so at most one per version. Additive increase, multiplicative
decrease (Chiu and Jain 1989), of what is a window in all but name:

* halved when the effective sample size of `patience` batches in a row is below `ess_floor`. That is the figure that
  sinks with staleness before a run collapses (VCPO, arXiv 2602.17616, who lower the learning rate by it)
* one more when in `patience` steps in a row the learner waited for its batch longer than `wait_share` of the step, an
  actor asked for work that η alone forbade, and the effective sample size was not below the floor. Where actors are
  merely slow nothing is forbidden, and a larger η would only grow staleness
* a change is judged by what was sampled under it: from one at step u, when η was a and became b, to step
  u + max(a, b) nothing counts
* an η that was too large is not tried again, so that under a constant map from η to evidence η comes to rest

Invariant: 0 ≤ η ≤ `eta_max`. What it does not know: whether a run learns worse by an η whose effective sample size is
fine, and the difference between noise and drift beyond `patience`.
"""

from __future__ import annotations

from dataclasses import dataclass

from common.staleness import StalenessConfig


@dataclass(frozen=True, slots=True)
class Evidence:
    """Of one learner step."""

    step: int
    effective_sample_size: float | None  # of its batch, a share of tokens; None: not known
    waited: float  # share of the step, from asking for the batch to its end, in which there was no batch
    forbidden: bool  # whether since the step before an actor wanted a lease that η alone forbade


class Lead:
    """`eta` batches, from `settings.eta` on; nothing of its past outlives the process but `eta`."""

    def __init__(self, settings: StalenessConfig) -> None:
        self.eta = settings.eta
        self._settings = settings
        self._ceiling = settings.eta_max
        self._first = 0  # step that counts next
        self._low = 0  # steps in a row below the floor
        self._slow = 0  # steps in a row that waited for what η forbade

    def weigh(self, seen: Evidence) -> str:
        """Take a step into account; steps come in order. Why η has changed: ess | wait, or empty if it has not."""
        if seen.step < self._first:
            return ""
        ess, limits = seen.effective_sample_size, self._settings
        low = ess is not None and not ess >= limits.ess_floor  # not a number is low, too
        slow = not low and seen.forbidden and seen.waited > limits.wait_share
        self._low = self._low + 1 if low else 0
        self._slow = self._slow + 1 if slow else 0
        if self._low >= limits.patience and self.eta > 0:
            self._ceiling = self.eta - 1
            return self._change(seen.step, self.eta // 2, "ess")
        if self._slow >= limits.patience and self.eta < self._ceiling:
            return self._change(seen.step, self.eta + 1, "wait")
        return ""

    def _change(self, step: int, eta: int, why: str) -> str:
        self._first = step + max(self.eta, eta) + 1
        self.eta, self._low, self._slow = eta, 0, 0
        return why
