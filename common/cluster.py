"""Where the processes of a run are placed, and how long each of them may take for what."""

from __future__ import annotations

from dataclasses import dataclass, field

from common.cores import CoresConfig


@dataclass(frozen=True)
class ClusterConfig:
    address: str = ""  # empty: a Ray of our own on this machine
    placement: str = "cpu"  # cpu | disjoint | shared: who has which GPUs (docs/placement.md)
    cpus: int = 2  # logical CPUs offered to a Ray of our own
    memory_gib: float = 0.0  # host memory to count on, where a machine grows with its use; 0: what is free now
    pin: bool = False  # engines on one half of this machine's cores, learner and intake on the other
    cores: CoresConfig = field(default_factory=CoresConfig)  # by role; stronger than pin
    start_timeout: float = 240.0
    placement_timeout: float = 30.0
    push_timeout: float = 60.0  # each phase of a weight push; a member that takes longer leaves service
    transport: str = "auto"  # ipc | tcp | auto: ipc when all is on one machine
    grace: float = 15.0  # seconds a part gets to stop
    restarts: int = 3  # of one part, before the run fails
    watchdog: float = 120.0  # seconds in which nothing moves until it is told who waits for whom; 0: never
    watchdog_end: float = 0.0  # seconds in which nothing moves until the run ends; 0: never

    @property
    def rules(self) -> list[tuple[bool, str]]:
        """What must hold, and what to say if it does not."""
        return [
            (self.cpus >= 1, "cluster.cpus must be at least 1"),
            (self.memory_gib >= 0, "cluster.memory_gib must be at least 0 (0: what is free now)"),
            (self.push_timeout >= 1, "cluster.push_timeout must be at least 1 second"),
            (self.restarts >= 0, "cluster.restarts must be at least 0"),
            (self.watchdog >= 0, "cluster.watchdog must be at least 0 seconds (0: never)"),
            (
                self.watchdog_end == 0 or self.watchdog_end >= self.watchdog,
                "cluster.watchdog_end must be 0 (never) or at least cluster.watchdog, which tells what the matter is",
            ),
            (
                not self.address or self.cores == CoresConfig(),
                "cluster.cores are of this machine: with cluster.address leave them empty",
            ),
            *self.cores.rules,
            (self.placement in ("cpu", "disjoint", "shared"), "cluster.placement must be cpu, disjoint or shared"),
            (self.transport in ("auto", "ipc", "tcp"), "cluster.transport must be auto, ipc or tcp"),
        ]
