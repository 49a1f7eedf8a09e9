"""The GPUs of a run, held in Ray for as long as it lasts.

A process that is started again finds the GPUs of the one before: its bundle is kept, not given back. Bundles hold the
logical CPUs of their processes, too. The trainer ranks' group is made first; Ray packs a group onto few nodes, as far
as they have room, and never splits a bundle.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from azr.gpu_placement import Bundle, GpuPlan
from azr.part import CPUS, role_of
from azr.reporting import awaitable
from common.errors import PartFailed


@dataclass
class Reservation:
    """Nothing until `make`."""

    groups: list[PlacementGroup] = field(default_factory=list)
    seats: dict[str, dict[str, Any]] = field(default_factory=dict)  # by part: Ray's options for its process

    async def make(self, plan: GpuPlan, limit: float) -> None:
        """PartFailed if Ray finds no room within `limit` seconds; `release` gives back what it found till then."""
        for bundles in filter(None, (plan.learner, plan.engines)):
            group = placement_group([_resources(bundle) for bundle in bundles], strategy="PACK")
            self.groups.append(group)
            try:
                await asyncio.wait_for(awaitable(group.ready()), limit)
            except TimeoutError:
                asked = f"{plan} and {_cpus(plan.bundles):.1f} CPU"
                raise PartFailed(
                    "placement",
                    f"no room after {limit:.0f} s: the run asks for {asked}; {_found()}",
                    hint="cluster.placement, fewer ranks or engines, a larger cluster.cpus or cluster, or a longer "
                    "cluster.placement_timeout",
                ) from None
            for index, bundle in enumerate(bundles):
                strategy = PlacementGroupSchedulingStrategy(group, index)
                options = {"num_gpus": bundle.share, "scheduling_strategy": strategy}
                self.seats |= dict.fromkeys(bundle.parts, options)

    def options(self, part: str) -> dict[str, Any]:
        """Of Ray, for the process of `part`; none if it has no GPU."""
        return self.seats.get(part, {})

    def release(self) -> None:
        """Give back all of it; Ray ends what still runs there."""
        for group in self.groups:
            remove_placement_group(group)
        self.groups, self.seats = [], {}


def _resources(bundle: Bundle) -> dict[str, float]:
    return {"GPU": float(bundle.gpus), "CPU": _cpus([bundle])}


def _cpus(bundles: Iterable[Bundle]) -> float:
    return round(sum(CPUS[role_of(part)] for bundle in bundles for part in bundle.parts), 4)


def _found() -> str:
    """What the cluster has in all, and free."""
    nodes = [node["Resources"].get("GPU", 0.0) for node in ray.nodes() if node["Alive"]]
    free, every = ray.available_resources(), ray.cluster_resources()
    told = ", ".join(
        f"{free.get(kind, 0.0):.1f} of {every.get(kind, 0.0):.0f} {kind} are free" for kind in ("GPU", "CPU")
    )
    return f"the cluster's nodes have {', '.join(f'{gpus:.0f}' for gpus in nodes)} GPUs, and {told}"
