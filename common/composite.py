"""Composite functions f(g()) (Absolute Zero, appendix; off by default): how often they are asked for, and of how many
components, as the book grows.

At version v, R(v) = ⌊(v − start) / interval⌋ raises have come, and a lease to propose deduction or abduction asks for a
composite with probability min(chance + R · chance_step, chance_max), of `least` to min(most + R, most_max) components,
all counts alike likely. Both are pure functions of the version. The official curriculum counts from step 101, which
version 100 samples, so its first raises come with versions 150 and 200.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CompositeConfig:
    start: int = -1  # version from which on composites are asked for; -1: never
    interval: int = 50  # versions from one raise to the next
    chance: float = 0.5  # of a lease to ask for a composite, at `start`
    chance_step: float = 0.01  # by which a raise lifts it (0: it stays)
    chance_max: float = 0.8
    least: int = 1  # components of a composite
    most: int = 1  # of them, inclusive, at `start`; a raise lifts it by one
    most_max: int = 3  # up to which (equal to `most`: it stays)

    def chance_at(self, version: int) -> float:
        """0 as long as there are no composites."""
        return min(self.chance + self._raises(version) * self.chance_step, self.chance_max) if self.on(version) else 0.0

    def most_at(self, version: int) -> int:
        """The largest number of components, itself included; 0 as long as there are no composites."""
        return min(self.most + self._raises(version), self.most_max) if self.on(version) else 0

    def on(self, version: int) -> bool:
        return 0 <= self.start <= version

    @property
    def rules(self) -> list[tuple[bool, str]]:
        """What must hold, and what to say if it does not."""
        return [
            (self.start >= -1, "composite.start must be a version (0 or more), or -1 for no composites"),
            (self.interval >= 1, "composite.interval must be at least 1 version"),
            (self.chance_step >= 0, "composite.chance_step must be at least 0 (0: the chance stays as it is)"),
            (
                0 <= self.chance <= self.chance_max <= 1,
                "composite.chance and chance_max are probabilities: 0 <= chance <= chance_max <= 1",
            ),
            (
                1 <= self.least <= self.most <= self.most_max,
                "composite.least, most and most_max must be at least 1 and not decrease in this order",
            ),
        ]

    def _raises(self, version: int) -> int:
        return (version - self.start) // self.interval
