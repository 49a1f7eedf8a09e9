"""Which process of a run has which GPUs, as data; azr/reservation.py asks Ray for it.

disjoint: each trainer rank has a GPU, each engine `engine.tensor_parallel` of them. shared: engine i < learner.ranks is
on the GPU of rank i, and further engines have GPUs of their own. What shares a GPU sees it as its device 0, as all
processes that Ray gives one GPU do.
A bundle lies on one node, so that an engine with tensor parallelism never spans two. Trainer ranks are placed first,
and near each other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from common.config import Config


@dataclass(frozen=True, slots=True)
class Bundle:
    """`gpus` GPUs of one node for `parts`, which share them equally."""

    gpus: int
    parts: tuple[str, ...]

    @property
    def share(self) -> float:
        """GPUs that a part asks Ray for. Ray gives equal fractions of a bundle of one GPU the same GPU."""
        return self.gpus / len(self.parts)


@dataclass(frozen=True, slots=True)
class GpuPlan:
    """`learner`: with trainer ranks; `engines`: with engines alone. Both are empty on CPU."""

    learner: tuple[Bundle, ...] = ()
    engines: tuple[Bundle, ...] = ()

    @property
    def bundles(self) -> tuple[Bundle, ...]:
        return self.learner + self.engines

    @property
    def gpus(self) -> int:
        return sum(bundle.gpus for bundle in self.bundles)

    def __str__(self) -> str:
        return " and ".join(_told(bundles) for bundles in (self.learner, self.engines) if bundles) or "no GPUs"


def planned(config: Config) -> GpuPlan:
    """Of a configuration that `common.config.check` accepts."""
    cluster, engine, learner = config.cluster, config.engine, config.learner
    if cluster.placement == "cpu":
        return GpuPlan()
    shared = learner.trainers if cluster.placement == "shared" else 0
    return GpuPlan(
        tuple(Bundle(1, (f"trainer-{i}", *([f"actor-{i}"] if shared else []))) for i in range(learner.trainers)),
        tuple(Bundle(engine.tensor_parallel, (f"actor-{i}",)) for i in range(shared, engine.actors)),
    )


def _told(bundles: tuple[Bundle, ...]) -> str:
    """`bundles` are equal but for the numbers of their parts."""
    roles = " + ".join(_roles(bundles[0]))
    each = f"{bundles[0].gpus} GPU{'s' if bundles[0].gpus > 1 else ''}"
    return f"{len(bundles)} x {each} of a node for {roles}"


def _roles(bundle: Bundle) -> Iterator[str]:
    return (part.partition("-")[0] for part in bundle.parts)
