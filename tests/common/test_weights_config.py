import pytest

from common.config import load
from common.errors import ConfigError


def carrier(*settings: str) -> str:
    return load("tiny.yaml", settings).carrier


def test_the_transport_follows_from_the_placement() -> None:
    assert carrier() == "gloo"
    assert carrier("cluster.placement=disjoint") == "nccl"
    assert carrier("cluster.placement=shared", "engine.actors=1") == "ipc"
    assert carrier("cluster.placement=shared", "engine.actors=2") == "gloo"
    assert carrier("cluster.placement=shared", "weights.transport=nccl") == "nccl"
    assert carrier("cluster.placement=disjoint", "weights.transport=gloo") == "gloo"


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (("weights.transport=mpi",), "weights.transport must be auto, gloo, nccl or ipc"),
        (("weights.transport=nccl",), "cluster.placement=cpu there are none: set it to auto or gloo"),
        (("weights.transport=ipc",), "cluster.placement=cpu there are none"),
        (("weights.transport=ipc", "cluster.placement=disjoint"), "do not see: set it to auto or nccl"),
        (("weights.transport=ipc", "cluster.placement=shared", "engine.actors=2"), "set engine.actors=1"),
        (("weights.delta=true", "cluster.placement=shared", "engine.actors=1"), "with weights.transport=ipc nothing"),
        (("weights.delta=true", "weights.checksum=false"), "only weights.checksum can prove right"),
    ],
)
def test_what_does_not_go_together_says_what_to_do(settings: tuple[str, ...], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load("tiny.yaml", settings)
