"""Sets η of the admission by what learner steps tell (`staleness.auto`), and says so in metrics and trace.

Invariant: without `staleness.auto` it changes nothing and tells nothing. η at the newest checkpoint outlives the
run: a resumed one begins with it (learner/resume_point.py); η in force outlives the process (learner/lease_ledger.py).
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
    """`changed(before, eta)` is told of every decision, and of what a return to a checkpoint takes back."""

    def __init__(
        self, settings: StalenessConfig, admission: Admission, clock: Clock, changed: Callable[[int, int], None]
    ) -> None:
        self._settings, self._admission, self._clock, self._changed = settings, admission, clock, changed
        self._lead = Lead(settings)
        self._asked: dict[int, float] = {}  # when the first rank wanted the batch of a step
        self._formed: dict[int, float] = {}
        self._forbidden = 0  # of the admission's, those before the newest step

    def begin(self, eta: int, before: int | None = None) -> None:
        """Go on with the `eta` of a run that ended, as far as the settings of this one allow it; `before`, where it is
        known, was in force last."""
        if self._settings.auto:
            self._lead.eta = min(max(eta, 0), self._settings.eta_max)
            self._limit()
            if before is not None and before != self._lead.eta:
                self._changed(before, self._lead.eta)

    def asked(self, step: int) -> None:
        self._asked.setdefault(step, self._clock.now())

    def formed(self, step: int) -> None:
        self._formed[step] = self._clock.now()

    def trained(self, done: StepDone) -> dict[str, float]:
        """Decide. Figures for the row of the step: η while it was trained, and what speaks for another."""
        now = self._clock.now()
        asked = self._asked.pop(done.step, now)
        waited = max(0.0, self._formed.get(done.step, asked) - asked) / max(now - asked, 1e-9)
        self._formed = {step: at for step, at in self._formed.items() if step > done.step}
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
