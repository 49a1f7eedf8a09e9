"""What a cluster does with its parts, which are stand-ins: who is started again, who is kept for the next run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ray.exceptions import RayActorError, RayTaskError

from azr.process import Process
from azr.wiring import Network
from common.config import Config, load
from common.errors import PartFailed
from common.messages import Report
from tests.fakes.cluster import FakeCluster, Handle
from tests.project import ROOT

FIRST = ["intake", "executor-0", "trainer-0", "actor-0"]


def config(*settings: str) -> Config:
    return load(ROOT / "configs" / "tiny.yaml", settings)


def network(asked: Config, folder: Path) -> Network:
    return Network("run", asked, folder)


async def started(folder: Path, *settings: str, kind: type[FakeCluster] = FakeCluster) -> FakeCluster:
    asked = config(*settings)
    cluster = kind(asked, network(asked, folder), folder)
    await cluster.start(quiet)
    return cluster


async def changed(cluster: FakeCluster, folder: Path, *settings: str) -> None:
    asked = config(*settings)
    await cluster.change(asked, network(asked, folder), folder, quiet)


def quiet(what: str) -> None:
    pass


def handle(cluster: FakeCluster, name: str) -> Handle:
    found: Handle = cluster.parts[name].handle
    return found


def end(cluster: FakeCluster, *names: str) -> None:
    for name in names:
        handle(cluster, name).over.set_result(None)


def die(cluster: FakeCluster, name: str) -> None:
    handle(cluster, name).over.set_exception(RayActorError())


@asynccontextmanager
async def supervised(cluster: FakeCluster) -> AsyncIterator[asyncio.Task[None]]:
    watching = asyncio.create_task(cluster.supervise(quiet))
    try:
        yield watching
    finally:
        watching.cancel()
        await asyncio.wait([watching])


async def until(true: Callable[[], bool], watching: asyncio.Task[None]) -> None:
    """Within a thousand turns of the loop, and before the run has ended."""
    for _ in range(1000):
        if true() or watching.done():
            break
        await asyncio.sleep(0)
    assert true(), watching


# -- the intake --------------------------------------------------------------------------------------------------


class Unlucky(FakeCluster):
    """Whoever is made a second time finds that the intake dies meanwhile, once."""

    def _spawn(self, name: str, cls: type[Process]) -> Handle:
        if name in self.made and name != "intake" and not handle(self, "intake").over.done():
            die(self, "intake")
        return super()._spawn(name, cls)


@pytest.mark.parametrize("part", ["actor-0", "executor-0"])
async def test_an_intake_that_dies_while_another_part_is_started_again_is_started_again(
    part: str, tmp_path: Path
) -> None:
    cluster = await started(tmp_path, kind=Unlucky)
    async with supervised(cluster) as watching:
        die(cluster, part)
        await until(lambda: cluster.made == [*FIRST, part, "intake"], watching)
        await until(lambda: "run" in handle(cluster, "intake").called, watching)
        end(cluster, "intake", "trainer-0", "actor-0")
        await watching
    assert cluster.killed == [part, "intake"]


async def test_an_intake_that_dies_before_anybody_watches_is_started_again(tmp_path: Path) -> None:
    cluster = await started(tmp_path)
    die(cluster, "intake")
    await asyncio.wait({cluster.parts["intake"].running or asyncio.Future[None]()})
    async with supervised(cluster) as watching:
        await until(lambda: cluster.made == [*FIRST, "intake"], watching)


async def test_an_intake_that_dies_together_with_an_actor_is_started_again_behind_it(tmp_path: Path) -> None:
    cluster = await started(tmp_path)
    async with supervised(cluster) as watching:
        die(cluster, "intake")
        die(cluster, "actor-0")
        await until(lambda: cluster.made == [*FIRST, "actor-0", "intake"], watching)


@pytest.mark.parametrize("early", [True, False])
async def test_an_intake_that_fails_by_itself_ends_the_run(early: bool, tmp_path: Path) -> None:
    cluster = await started(tmp_path)
    failure = RayTaskError("run", "traceback", PartFailed("intake", "the journal is damaged"))
    if early:
        handle(cluster, "intake").over.set_exception(failure)
        await asyncio.wait({cluster.parts["intake"].running or asyncio.Future[None]()})
    async with supervised(cluster) as watching:
        if not early:
            await asyncio.sleep(0)
            handle(cluster, "intake").over.set_exception(failure)
        with pytest.raises(PartFailed, match="the journal is damaged"):
            await watching
    assert cluster.made == FIRST


async def test_an_intake_that_dies_too_often_ends_the_run(tmp_path: Path) -> None:
    cluster = await started(tmp_path, "cluster.restarts=1")
    async with supervised(cluster) as watching:
        die(cluster, "intake")
        await until(lambda: cluster.made == [*FIRST, "intake"], watching)
        await until(lambda: "run" in handle(cluster, "intake").called, watching)
        die(cluster, "intake")
        with pytest.raises(PartFailed, match="its process died"):
            await watching
    assert cluster.made == [*FIRST, "intake"]


async def test_late_actors_that_wait_for_a_dead_intake_name_it(tmp_path: Path) -> None:
    def dead() -> None:
        raise RayActorError()

    cluster = await started(tmp_path, "engine.actors=2", "engine.join_after=1")
    handle(cluster, "intake").answers["reached"] = dead
    async with supervised(cluster) as watching:
        with pytest.raises(PartFailed, match="intake") as raised:
            await watching
    assert raised.value.log == str(tmp_path / "logs" / "intake.log")


@pytest.mark.parametrize(("settings", "hinted"), [((), False), (("cluster.address=10.0.0.1:6379",), True)])
async def test_a_rank_that_fails_on_several_machines_hints_at_their_networks(
    settings: tuple[str, ...], hinted: bool, tmp_path: Path
) -> None:
    cluster = await started(tmp_path, *settings)
    async with supervised(cluster) as watching:
        die(cluster, "trainer-0")
        with pytest.raises(PartFailed, match="trainer-0: its process died") as raised:
            await watching
    assert ("NCCL_SOCKET_IFNAME" in raised.value.hint) is hinted


# -- the next run ------------------------------------------------------------------------------------------------


async def finished(folder: Path, *settings: str, left: tuple[str, ...] = ()) -> FakeCluster:
    """After a run in which all but the actors `left` ended."""
    cluster = await started(folder, "cluster.grace=0.1", *settings)
    async with supervised(cluster) as watching:
        await until(lambda: all(p.running for p in cluster.parts.values()), watching)
        end(cluster, *(name for name in cluster.parts if name not in left and not name.startswith("executor")))
        await watching
    return cluster


async def test_the_next_run_has_engines_and_sandboxes_of_the_one_before(tmp_path: Path) -> None:
    cluster = await finished(tmp_path)
    await changed(cluster, tmp_path / "second", "cluster.grace=0.1")
    assert cluster.killed == ["intake", "trainer-0"]
    assert cluster.made == [*FIRST, "intake", "trainer-0"]
    assert (
        handle(cluster, "actor-0").called.count("assign") == handle(cluster, "executor-0").called.count("assign") == 1
    )


async def test_late_actors_join_late_in_the_next_run_too(tmp_path: Path) -> None:
    late = ("cluster.grace=0.1", "engine.actors=2", "engine.join_after=1")
    cluster = await finished(tmp_path, *late)
    await changed(cluster, tmp_path / "second", *late)
    actor = handle(cluster, "actor-1")
    assert actor.called.count("start") == 2 and actor.called.count("run") == 1
    async with supervised(cluster) as watching:
        await until(lambda: actor.called.count("run") == 2, watching)
    assert handle(cluster, "intake").called.count("reached") == 1


async def test_an_actor_that_has_not_ended_is_made_anew(tmp_path: Path) -> None:
    cluster = await finished(tmp_path, left=("actor-0",))
    old = handle(cluster, "actor-0")
    await changed(cluster, tmp_path / "second", "cluster.grace=0.1")
    assert "actor-0" in cluster.killed and "assign" not in old.called
    assert handle(cluster, "actor-0") is not old and cluster.made.count("actor-0") == 2
    assert cluster.parts["actor-0"].restarts == 0


async def test_what_a_shard_tells_of_one_run_is_not_told_in_the_next(tmp_path: Path) -> None:
    cluster = await finished(tmp_path)
    shard, told = handle(cluster, "executor-0"), iter(["first", "second"])
    shard.answers["report"] = lambda: Report("executor-0", {next(told): 1.0})
    asking = asyncio.create_task(cluster.reports.collect(cluster.parts))
    await asyncio.sleep(0)
    asking.cancel()  # whoever watched the first run
    await changed(cluster, tmp_path / "second", "cluster.grace=0.1")
    (report,) = await cluster.reports.collect(cluster.parts)
    assert report.ledger == {"second": 1.0}


async def test_a_part_that_dies_while_it_is_introduced_is_named(tmp_path: Path) -> None:
    def dead() -> None:
        raise RayActorError()

    cluster = await finished(tmp_path)
    handle(cluster, "actor-0").answers["public_key"] = dead
    with pytest.raises(PartFailed, match="actor-0: its process died"):
        await changed(cluster, tmp_path / "second", "cluster.grace=0.1")
