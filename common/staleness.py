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
    auto: bool = False  # eta moves between 0 and eta_max as the run goes on, from eta (docs/staleness-control.md)
    eta_max: int = 8  # auto: the largest eta
    ess_floor: float = 0.5  # auto: effective sample size of a batch, a share of its tokens, below which eta is halved
    wait_share: float = 0.1  # auto: of a step, spent waiting for its batch, above which eta grows by one
    patience: int = 3  # auto: learner steps in a row that must say so

    @property
    def bound(self) -> int:
        """Batches a group may lag behind the step that trains it."""
        return self.bound_at(self.eta)

    @property
    def widest_bound(self) -> int:
        """The largest that may be in force."""
        return self.bound_at(self.eta_max) if self.auto else self.bound

    def bound_at(self, eta: int) -> int:
        """`bound` while `eta` is in force."""
        if self.max_staleness >= 0:
            return self.max_staleness
        return NO_BOUND if eta < 0 else 2 * eta

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
            (
                not self.auto or self.mode == "natural",
                "staleness.auto moves eta, and staleness.mode=exact holds to it: set one of them",
            ),
            (
                not self.auto or 0 <= self.eta <= self.eta_max,
                "staleness.auto begins with staleness.eta: set it to 0 … staleness.eta_max",
            ),
            (0 <= self.ess_floor <= 1, "staleness.ess_floor is a share of tokens, 0 (never) to 1"),
            (0 <= self.wait_share <= 1, "staleness.wait_share is a share of a step, 0 to 1 (never)"),
            (self.patience >= 1, "staleness.patience must be at least 1 learner step"),
        ]
