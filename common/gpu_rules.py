"""What settings of cluster, engine and learner must hold together for their processes to find room on GPUs."""

from __future__ import annotations

from common.cluster import ClusterConfig
from common.engine import EngineConfig
from common.learner import LearnerConfig


def gpu_rules(cluster: ClusterConfig, engine: EngineConfig, learner: LearnerConfig) -> list[tuple[bool, str]]:
    """What must hold, and what to say if it does not."""
    shared = cluster.placement == "shared"
    return [
        (
            engine.tensor_parallel == 1 or cluster.placement == "disjoint",
            "engine.tensor_parallel over 1 needs GPUs of the engine's own: cluster.placement=disjoint",
        ),
        (
            not shared or learner.trainers > 0,
            "cluster.placement=shared is for a learner and its engines: with learner.kind=none it is disjoint",
        ),
        (
            not shared or engine.actors >= learner.trainers,
            "cluster.placement=shared has an engine on the GPU of each trainer rank: engine.actors must be at least "
            "learner.ranks (more have GPUs of their own)",
        ),
    ]
