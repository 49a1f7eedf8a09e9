"""Programs that attack, with the policy and without: the expected status, nothing made, nothing left behind."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest

from common.jobs import Validate
from executor.shard import Shard
from tests.executor.conftest import CONFIG

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROBE = Validate("import math\ndef f(x): return [math.sqrt(x), sorted({'b', 'a'}), repr(1)]", ("4",))
PROBED = ("[2.0, ['a', 'b'], '1']",)


def alive(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


def children(pid: int | None) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def aimed(program: str) -> str:
    """The attacks that call the kernel look for its entry in a module of the sandbox: tell them its real name."""
    return program.replace("m['sandbox']", "m['executor.sandbox']").replace("sb._sc", "sb._syscall")


@pytest.mark.parametrize("policy", [True, False])
async def test_the_hostile_set(shared: Path, policy: bool, tmp_path: Path) -> None:
    folder = shared / "hostile"
    if not folder.is_dir():
        pytest.skip("the shared folder holds no hostile programs")
    manifest = json.loads((folder / "manifest.json").read_text())
    canary = tmp_path / "canary"
    canary.write_text("alive")
    before = set(os.listdir("/tmp"))
    shard = Shard(dataclasses.replace(CONFIG, cpu_limit=0.25, output_limit=65536, cache=0), policy=policy)
    await shard.start()
    try:
        pids = (shard.pair.first.pid, shard.pair.second.pid)
        wrong = {}
        for name, case in manifest.items():
            program = aimed((folder / case["file"]).read_text())
            reply = await shard.validate(Validate(program, tuple(case["inputs"])))
            if reply.status not in [*case["expect"], *(["policy"] if policy else [])]:
                wrong[name] = (str(reply.status), reply.detail)
            clean = await shard.validate(PROBE)
            assert clean.outputs == PROBED, (name, clean)
        assert not wrong
        assert (shard.pair.first.pid, shard.pair.second.pid) == pids
        for pid in pids:
            assert not children(pid)
    finally:
        await shard.close()
    assert canary.read_text() == "alive"
    assert not {name for name in set(os.listdir("/tmp")) - before if "azr" in name or "pwn" in name}
    assert not any(alive(pid) for pid in pids)


REACH = """
def modules():
    for kind in ().__class__.__base__.__subclasses__():
        space = getattr(getattr(kind, '__init__', None), '__globals__', {})
        if 'sys' in space:
            return space['sys'].modules
"""


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("modules()['os'].write(3, b'\\x00\\x01\\x00\\x00\\x00' + b'7')\n    return 8", "protocol"),
        ("modules()['os'].write(3, b'\\x63\\x00\\x00\\x00\\x00')\n    modules()['os']._exit(0)", "protocol"),
        (
            "w = modules()['os'].write\n    while True: w(3, b'\\x00\\xff\\xff\\x00\\x00' + b'a' * 65535)",
            "protocol|flood|timeout_cpu",
        ),
        ("modules()['os'].write(3, b'\\x00\\x07\\x00\\x00\\x00f(1)+[]')\n    modules()['os']._exit(0)", "protocol"),
        ("modules()['os'].close(3)\n    return 1", "error"),
        ("modules()['os'].dup2(3, 4)\n    return 1", "violation"),
        ("modules()['os'].read(0, 1)\n    return 1", "error"),
        ("modules()['signal'].setitimer(2, 100.0)\n    return 1", "violation"),
        ("modules()['os'].kill(1, 9)\n    return 1", "violation"),
        ("modules()['resource'].setrlimit(9, (-1, -1))\n    return 1", "violation"),
        ("modules()['ctypes'].CDLL(None).mmap(0, 4096, 5, 0x22, -1, 0)\n    return 1", "violation"),
    ],
)  # fmt: skip
async def test_own_attacks_without_policy(open_shard: Shard, body: str, expected: str) -> None:
    reply = await open_shard.validate(Validate(f"{REACH}\ndef f(x):\n    {body}", ("1",)))
    assert reply.status in expected.split("|"), reply
    assert (await open_shard.validate(PROBE)).outputs == PROBED
