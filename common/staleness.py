"""How far generation may run ahead of training, and how old what is trained may be (docs/design.md, admission)."""

from __future__ import annotations

from dataclasses import dataclass

UNBOUNDED = -1  # eta: actors never wait for the learner
NO_BOUND = 1 << 30  # a staleness that no group reaches
MODES = ("natural", "exact")


@dataclass(frozen=True)
class StalenessConfig:
    eta: int = 2  # batches that generation may run ahead of training; -1: unbounded
    mode: str = (
        "natural"  # natural: at most eta ahead, as speed has it | exact: every batch is sampled eta versions ago
    )
    max_staleness: int = -1  # -1: 0 if eta is 0, else 2 * eta
    lease_timeout: float = 120.0  # seconds without renewal after which a lease is granted again

    @property
    def bound(self) -> int:
        """Batches a group may lag behind the step that trains it."""
        if self.max_staleness >= 0:
            return self.max_staleness
        return NO_BOUND if self.eta < 0 else 2 * self.eta

    @property
    def rules(self) -> list[tuple[bool, str]]:
        """What must hold, and what to say if it does not."""
        return [
            (self.eta >= UNBOUNDED, "staleness.eta must be 0 or more, or -1 for unbounded"),
            (self.mode in MODES, f"staleness.mode must be {' or '.join(MODES)}"),
            (self.lease_timeout >= 1, "staleness.lease_timeout must be at least 1 second"),
            (
                self.mode != "exact" or self.eta >= 0,
                "staleness.mode=exact needs a staleness to hold to: set staleness.eta to 0 or more",
            ),
            (
                self.mode != "exact" or self.bound >= self.eta,
                "staleness.max_staleness must not be below staleness.eta: with staleness.mode=exact nothing is younger",
            ),
        ]
