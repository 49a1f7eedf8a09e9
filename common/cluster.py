"""Where the processes of a run are placed, and how long each of them may take for what."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClusterConfig:
    address: str = ""  # empty: a Ray of our own on this machine
    cpus: int = 2  # logical CPUs offered to a Ray of our own
    pin: bool = False  # engines on one half of this machine's cores, learner and intake on the other
    start_timeout: float = 240.0
    placement_timeout: float = 30.0
    push_timeout: float = 60.0  # each phase of a weight push; a member that takes longer leaves service
    transport: str = "auto"  # ipc | tcp | auto: ipc when all is on one machine
    grace: float = 15.0  # seconds a part gets to stop
    restarts: int = 3  # of one part, before the run fails

    @property
    def rules(self) -> list[tuple[bool, str]]:
        """What must hold, and what to say if it does not."""
        return [
            (self.cpus >= 1, "cluster.cpus must be at least 1"),
            (self.push_timeout >= 1, "cluster.push_timeout must be at least 1 second"),
            (self.restarts >= 0, "cluster.restarts must be at least 0"),
            (self.transport in ("auto", "ipc", "tcp"), "cluster.transport must be auto, ipc or tcp"),
        ]
