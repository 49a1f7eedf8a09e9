"""Which process has which GPUs, by hand and as Ray places it on a machine that pretends to have four of them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from azr.cluster import OBJECT_STORE, Cluster
from azr.environment import alone_on, environment
from azr.gpu_placement import Bundle, GpuPlan, planned
from azr.gpu_share import share
from azr.memory import GIB
from azr.process import Process
from azr.reservation import Reservation
from azr.wiring import Endpoint, Network
from common.config import Config, check, load
from common.errors import ConfigError, PartFailed

GPUS = 4


def config(placement: str, *settings: str) -> Config:
    return load(os.devnull, [f"cluster.placement={placement}", "engine.kind=async", "cluster.cpus=4", *settings])


# -- the plan ----------------------------------------------------------------------------------------------------


def test_on_cpu_nobody_has_a_gpu() -> None:
    assert planned(config("cpu", "engine.actors=2")) == GpuPlan()
    assert (planned(config("cpu")).gpus, str(planned(config("cpu")))) == (0, "no GPUs")


def test_disjoint_processes_have_gpus_of_their_own() -> None:
    plan = planned(config("disjoint", "learner.ranks=2", "engine.actors=2", "engine.tensor_parallel=4"))
    assert plan.learner == (Bundle(1, ("trainer-0",)), Bundle(1, ("trainer-1",)))
    assert plan.engines == (Bundle(4, ("actor-0",)), Bundle(4, ("actor-1",)))
    assert plan.gpus == 10
    assert str(plan) == "2 x 1 GPU of a node for trainer and 2 x 4 GPUs of a node for actor"
    assert [bundle.share for bundle in plan.bundles] == [1, 1, 4, 4]


def test_shared_engines_are_on_the_gpus_of_ranks_and_further_ones_beside_them() -> None:
    plan = planned(config("shared", "learner.ranks=2", "engine.actors=3"))
    assert plan.learner == (Bundle(1, ("trainer-0", "actor-0")), Bundle(1, ("trainer-1", "actor-1")))
    assert plan.engines == (Bundle(1, ("actor-2",)),)
    assert plan.gpus == 3 and [bundle.share for bundle in plan.bundles] == [0.5, 0.5, 1]
    assert planned(config("shared")) == GpuPlan((Bundle(1, ("trainer-0", "actor-0")),))


def test_without_a_learner_engines_alone_have_gpus() -> None:
    assert planned(config("disjoint", "learner.kind=none")) == GpuPlan((), (Bundle(1, ("actor-0",)),))


@given(st.sampled_from(["disjoint", "shared"]), st.integers(1, 8), st.integers(1, 8), st.integers(1, 8), st.booleans())
def test_every_rank_and_engine_is_placed_once(
    placement: str, ranks: int, actors: int, parallel: int, trains: bool
) -> None:
    base = Config()
    asked = replace(
        base,
        cluster=replace(base.cluster, placement=placement),
        engine=replace(base.engine, kind="async", actors=actors, tensor_parallel=parallel),
        learner=replace(base.learner, kind="deepspeed" if trains else "none", ranks=ranks),
    )
    try:
        check(asked)
    except ConfigError:
        assert placement == "shared" and (actors < ranks or parallel > 1 or not trains)
        return
    plan, ranks = planned(asked), ranks if trains else 0
    placed = [part for bundle in plan.bundles for part in bundle.parts]
    assert sorted(placed) == sorted([f"trainer-{i}" for i in range(ranks)] + [f"actor-{i}" for i in range(actors)])
    assert plan.gpus == (max(ranks, actors) if placement == "shared" else ranks + actors * parallel)


@pytest.mark.parametrize(
    ("placement", "settings", "named"),
    [
        ("disjoint", ["engine.tensor_parallel=0"], "at least 1"),
        ("disjoint", ["engine.tensor_parallel=2", "engine.kind=inprocess"], "engine.kind=async"),
        ("shared", ["engine.tensor_parallel=2"], "cluster.placement=disjoint"),
        ("cpu", ["engine.tensor_parallel=2"], "cluster.placement=disjoint"),
        ("shared", ["learner.ranks=2"], "engine.actors must be at least"),
        ("shared", ["learner.kind=none"], "learner.kind=none"),
        ("both", [], "cpu, disjoint or shared"),
    ],
)
def test_what_cannot_be_placed_is_an_error(placement: str, settings: list[str], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        config(placement, *settings)


# -- the environment ---------------------------------------------------------------------------------------------


def test_only_trainers_and_engines_of_a_run_on_gpus_see_any() -> None:
    for role in ("intake", "executor", "trainer", "actor"):
        assert environment(role, gpus=False)["CUDA_VISIBLE_DEVICES"] == ""
    assert environment("intake", gpus=True) == environment("executor", gpus=True) == {"CUDA_VISIBLE_DEVICES": ""}
    for role in ("trainer", "actor"):
        assert "CUDA_VISIBLE_DEVICES" not in environment(role, gpus=True)  # Ray names them


def test_a_trainer_is_told_its_accelerator() -> None:
    assert environment("trainer", gpus=False)["DS_ACCELERATOR"] == "cpu"
    assert environment("trainer", gpus=True)["DS_ACCELERATOR"] == "cuda"


def test_ranks_that_ray_does_not_place_take_the_visible_gpus_in_turn() -> None:
    assert [alone_on(rank, None)["CUDA_VISIBLE_DEVICES"] for rank in (0, 1)] == ["0", "1"]
    assert [alone_on(rank, "3, GPU-7")["CUDA_VISIBLE_DEVICES"] for rank in (0, 1)] == ["3", "GPU-7"]
    for rank, visible in ((2, "3,GPU-7"), (0, "")):
        with pytest.raises(PartFailed, match=f"and {rank + 1} are needed"):
            alone_on(rank, visible)


# -- a shared GPU ------------------------------------------------------------------------------------------------


def test_the_learner_has_what_the_engine_and_its_own_context_leave() -> None:
    assert share(80 * GIB, 19 * GIB) == 60 / 80
    assert share(4 * GIB, 2 * GIB) == 1 / 4
    with pytest.raises(PartFailed, match="nothing is left for the learner"):
        share(80 * GIB, 79 * GIB)


# -- with Ray ----------------------------------------------------------------------------------------------------


def pretend() -> None:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    ray.init(
        address="local",
        num_gpus=GPUS,
        num_cpus=4,
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )


@dataclass
class PretendingCluster(Cluster):
    """With GPUs that are not there, and processes that only tell which they see. `again`: an actor was restarted."""

    again: asyncio.Event = field(default_factory=asyncio.Event)

    def _start_ray(self, progress: Callable[[str], None]) -> None:
        pretend()

    def _spawn(self, name: str, cls: type[Process]) -> Any:
        class Watcher(Process):  # made here, so that Ray carries its code
            async def start(self, *_: Any) -> Endpoint:
                return Endpoint("ipc://nowhere")

            async def rendezvous(self) -> None:
                pass

            async def run(self, *_: Any) -> None:
                await asyncio.Event().wait()

            async def reached(self, version: int) -> None:
                pass

            async def close(self) -> None:
                pass

            async def seen(self) -> str:
                return os.environ.get("CUDA_VISIBLE_DEVICES", "all")

            async def die(self) -> None:
                os._exit(1)

        return super()._spawn(name, Watcher)

    async def _restart_actor(self, name: str, index: int) -> None:
        await super()._restart_actor(name, index)
        self.again.set()


def quiet(what: str) -> None:
    pass


@asynccontextmanager
async def started(folder: Path, asked: Config) -> AsyncIterator[PretendingCluster]:
    cluster = PretendingCluster(asked, Network("run", asked, folder), folder)
    try:
        await cluster.start(quiet)
        yield cluster
    finally:
        await cluster.stop()


async def seen(cluster: Cluster) -> dict[str, str]:
    return {name: await part.handle.seen.remote() for name, part in cluster.parts.items()}


@asynccontextmanager
async def pretending() -> AsyncIterator[Reservation]:
    pretend()
    try:
        yield Reservation()
    finally:
        ray.shutdown()


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
async def test_disjoint_parts_see_gpus_of_their_own_and_find_them_again(tmp_path: Path) -> None:
    asked = config("disjoint", "learner.ranks=2", "engine.tensor_parallel=2")
    async with started(tmp_path, asked) as cluster:
        found = await seen(cluster)
        assert found["intake"] == found["executor-0"] == ""
        gpus = {name: found[name].split(",") for name in ("trainer-0", "trainer-1", "actor-0")}
        assert [len(numbers) for numbers in gpus.values()] == [1, 1, 2]
        assert sorted(number for numbers in gpus.values() for number in numbers) == ["0", "1", "2", "3"]

        watching = asyncio.create_task(cluster.supervise(quiet))
        first = cluster.parts["actor-0"]
        first.handle.die.remote()
        await asyncio.wait_for(cluster.again.wait(), 120)
        assert cluster.parts["actor-0"] is not first and await seen(cluster) == found
        watching.cancel()
        await asyncio.wait({watching})

        folder = tmp_path / "second"
        await cluster.change(asked, Network("run", asked, folder), folder, quiet)
        assert await seen(cluster) == found


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
async def test_a_rank_and_its_engine_share_a_gpu_and_further_engines_have_their_own(tmp_path: Path) -> None:
    async with started(tmp_path, config("shared", "learner.ranks=2", "engine.actors=3")) as cluster:
        found = await seen(cluster)
        assert found["trainer-0"] == found["actor-0"] and found["trainer-1"] == found["actor-1"]
        assert len({found["actor-0"], found["actor-1"], found["actor-2"]}) == 3
        assert {found["actor-0"], found["actor-1"], found["actor-2"]} < {"0", "1", "2", "3"}


@pytest.mark.real
@pytest.mark.filterwarnings("ignore")
async def test_what_is_released_can_be_reserved_again_and_more_than_there_is_cannot() -> None:
    four = planned(config("disjoint", "learner.ranks=2", "engine.tensor_parallel=2"))
    async with pretending() as reservation:
        for _ in range(2):  # the second finds room only if the first gave all back
            await reservation.make(four, 60)
            assert reservation.options("trainer-1")["num_gpus"] == 1
            assert reservation.options("intake") == {}
            reservation.release()
        with pytest.raises(PartFailed) as raised:
            await reservation.make(planned(config("disjoint", "engine.tensor_parallel=4")), 1)
        reservation.release()
        await reservation.make(four, 60)  # what a failed one had found is free, too
    assert "asks for 1 x 1 GPU of a node for trainer and 1 x 4 GPUs of a node for actor and 0.6 CPU" in str(
        raised.value
    )
    assert "nodes have 4 GPUs, and 3.0 of 4 GPU are free" in str(raised.value)
