"""The intake of a run without a learner (learner.kind=none): actors and executor alone, as fast as they go.

Leases, admission and batching are those of every run, so the mix of kinds is, too. But there is no trainer: engines
serve the base model from the moment they join, no version follows version 0, staleness is unbounded, and a batch is
acknowledged and discarded as soon as it is formed. Leases are granted to the end, so that the last batches come as fast
as the others; the run ends with the group that completes batch `learner.steps`, and what is then open or waiting ends
unused.

Rates are from the first lease that is not a seed to the last batch. The book stays as it was seeded. Nothing is
evaluated or analysed, and there is nothing to resume. With logging.keep_discarded the groups are journaled, for those
who want what was sampled; otherwise not.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Any

from common import messages as m
from common.transport import Peer
from common.types import Group, Lease
from learner.figures import rollout_row
from learner.intake import Intake
from learner.journal import Journal
from learner.run_log import rejections

_ENDLESS = 1 << 62  # batches, and versions of staleness


class RolloutOnly(Intake):
    """To be made without questions."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.admission.limits = dataclasses.replace(
            self.admission.limits, eta=-1, max_staleness=_ENDLESS, steps=_ENDLESS, exact=False
        )
        if not self._config.logging.keep_discarded:
            self.journal.close()
            self.journal = _NoJournal(self._folder / "journal")
        self._began: float | None = None
        self._last = 0.0
        self._totals: Counter[str] = Counter()

    def joined(self, peer: Peer, hello: m.Hello) -> None:
        super().joined(peer, hello)
        if peer.role == "actor":
            self.weights.adopt(peer.index)

    def _make(self, lease: int, version: int) -> Lease:
        if self._began is None:
            self._began = self._last = self._clock.now()
        return super()._make(lease, version)

    def _form(self, actor: int = -1) -> None:
        while not self.finished.is_set() and (batch := self.admission.form()) is not None:
            self._discard(batch)

    def _discard(self, batch: list[Group]) -> None:
        before, self._last = self._last, self._clock.now()
        row = rollout_row(self._step, batch, self._config, seconds=self._last - before)
        self.admission.trained(self._step, batch, fate="discarded")
        self.log.step(row, Counter())
        self.log.rejected.update(rejections(sample for group in batch for sample in group.samples))
        self._step += 1
        self._totals.update({"groups": len(batch), "sequences": int(row["sequences"]), "tokens": int(row["tokens"])})
        self.rates = {"rollout": self._rates()}
        if self._step == self._config.learner.steps:
            self._finish()

    def _rates(self) -> dict[str, float]:
        seconds = self._last - (self._began or 0.0)
        rates = {f"{what}_per_second": n / seconds if seconds else 0.0 for what, n in self._totals.items()}
        return {"seconds": seconds, **self._totals, **rates}


class _NoJournal(Journal):
    """What is discarded is not kept."""

    def append(self, record: Group | m.BatchFormed) -> None:
        pass
