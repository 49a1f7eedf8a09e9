"""Sets η of the admission by what learner steps tell (`staleness.auto`), and says so in metrics and trace.

Invariant: without `staleness.auto` it changes nothing and tells nothing. η at the newest checkpoint outlives the
process: a resumed run begins with it (learner/resume_point.py).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from common.clock import Clock
from common.messages import StepDone
from common.staleness import StalenessConfig
from learner.admission import Admission
from learner.lead import Evidence, Lead

log = logging.getLogger(__name__)


class AutoEta:
    """`changed(before, eta)` is told of every decision."""

    def __init__(
        self, settings: StalenessConfig, admission: Admission, clock: Clock, changed: Callable[[int, int], None]
    ) -> None:
        self._settings, self._admission, self._clock, self._changed = settings, admission, clock, changed
        self._lead = Lead(settings)
        self._asked: dict[int, float] = {}  # when the first rank wanted the batch of a step
        self._formed: dict[int, float] = {}
        self._forbidden = 0  # of the admission's, those before the newest step

    def begin(self, eta: int) -> None:
        """Go on with the `eta` of a run that ended, as far as the settings of this one allow it."""
        if self._settings.auto:
            self._lead.eta = min(max(eta, 0), self._settings.eta_max)
            self._limit()

    def asked(self, step: int) -> None:
        self._asked.setdefault(step, self._clock.now())

    def formed(self, step: int) -> None:
        self._formed[step] = self._clock.now()

    def trained(self, done: StepDone) -> dict[str, float]:
        """Decide. Figures for the row of the step: η while it was trained, and what speaks for another."""
        now = self._clock.now()
        asked = self._asked.pop(done.step, now)
        waited = max(0.0, self._formed.pop(done.step, asked) - asked) / max(now - asked, 1e-9)
        forbidden, self._forbidden = self._admission.forbidden - self._forbidden, self._admission.forbidden
        if not self._settings.auto:
            return {}
        before = self._lead.eta
        ess = done.metrics.get("effective_sample_size") if done.metrics.get("tokens") else None
        why = self._lead.weigh(Evidence(done.step, ess, waited, forbidden > 0))
        if why:
            self._limit()
            self._changed(before, self._lead.eta)
            log.info("step %d: eta %d -> %d (%s)", done.step, before, self._lead.eta, why)
        return {
            "staleness/eta": before,
            "staleness/eta_waited": waited,
            "staleness/eta_forbidden": float(forbidden > 0),
            "staleness/eta_lowered_by_ess": float(why == "ess"),
            "staleness/eta_raised_by_wait": float(why == "wait"),
        }

    def status(self) -> dict[str, int]:
        return {"eta": self._lead.eta} if self._settings.auto else {}

    def _limit(self) -> None:
        eta = self._lead.eta
        self._admission.adapt(eta, self._settings.bound_at(eta))
