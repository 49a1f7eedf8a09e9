"""Processes that die, stay silent or cannot start: every job still gets its one answer."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from common.errors import SandboxUnavailable
from common.jobs import Validate, Verify
from common.types import Task, TaskType
from executor.link import Died
from executor.outcome import Outcome
from executor.process import Process
from executor.reader import Reader
from executor.shard import Shard
from executor.side import Side
from tests.executor.conftest import CONFIG


def fragile(how: str) -> Process:
    return Process(how, Path(__file__).with_name("fragile.py"), (how,), hash_seed=0)


def alive(pid: int | None) -> bool:
    return Path(f"/proc/{pid}").exists()


async def let_others_run() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("how", "reason"), [("silent", "did not come up"), ("unavailable", "no seccomp here")])
async def test_a_process_without_sandbox_is_refused(how: str, reason: str) -> None:
    process = fragile(how)
    with pytest.raises(SandboxUnavailable, match=reason):
        await process.start()
    assert process.pid is None


@pytest.mark.parametrize("how", ["dies", "babbles"])
async def test_a_process_that_fails_is_replaced(how: str) -> None:
    process = fragile(how)
    for start in (1, 2):
        with pytest.raises(Died):
            await process.ask(b"job", 10)
        assert process.starts == start
    await process.close()


async def test_a_request_that_is_cancelled_cannot_leave_its_reply_behind() -> None:
    reader = Reader(policy=True, timeout=10, max_value=100, entries=0)
    await reader.process.start()
    pid = reader.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    asked = asyncio.create_task(reader.values([b"1"]))
    await let_others_run()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    os.kill(pid, signal.SIGCONT)
    assert [read.payload for read in await reader.values([b"2"])] == [b"2"]
    assert reader.process.pid == pid
    await reader.process.close()


async def test_texts_survive_the_death_of_the_checker() -> None:
    reader = Reader(policy=True, timeout=10, max_value=100, entries=0)
    await reader.process.start()
    pid = reader.process.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    asked = asyncio.create_task(reader.values([b"1", b"[2]", b"1"]))
    await let_others_run()
    os.kill(pid, signal.SIGKILL)
    assert [read.payload for read in await asked] == [b"1", b"[2]", b"1"]
    assert reader.process.pid != pid
    await reader.process.close()


async def test_a_text_that_is_there_at_two_deaths_of_the_checker_is_to_blame() -> None:
    reader = Reader(policy=True, timeout=10, max_value=100, entries=0)
    reader.process = fragile("dies")
    assert [read.status for read in await reader.values([b"1"])] == ["checker_crash"]
    await reader.process.close()


async def test_a_fork_server_killed_in_the_middle_of_jobs_is_replaced() -> None:
    shard = Shard(CONFIG)
    await shard.start()
    (fast, _), pid = shard.sides[0].processes, shard.sides[0].processes[0].pid
    assert pid is not None
    program = await shard.reader.program("def f(x): return x + 1")
    given = await shard.reader.expressions(["1", "2", "3"])
    os.kill(pid, signal.SIGSTOP)
    jobs = [asyncio.create_task(shard.sides[0].run(program, [one])) for one in given]
    await let_others_run()
    assert shard.sides[0].load == 3
    os.kill(pid, signal.SIGKILL)
    assert [(o.status, o.text) for job in jobs for o in await job] == [("ok", "2"), ("ok", "3"), ("ok", "4")]
    assert fast.pid not in (pid, None)
    assert (await shard.validate(Validate("def f(x): return x", ("3",)))).outputs == ("3",)
    await shard.close()


async def test_only_the_job_that_was_there_at_two_deaths_is_poison() -> None:
    reader = Reader(policy=True, timeout=10, max_value=100, entries=0)
    side = Side(CONFIG, reader, fragile("dies of two inputs"), fragile("dies"), backwards=False)
    program = await reader.program("def f(x): return x")
    one, two, other = await reader.expressions(["1", "2", "3"])
    first = asyncio.create_task(side.run(program, [one, two]))
    await let_others_run()
    second = asyncio.create_task(side.run(program, [other]))
    assert await first == [Outcome("poison")] * 2
    assert (await second)[0].status == "exited"
    await reader.close()
    await side.close()


async def test_a_closed_shard_says_nothing_about_programs() -> None:
    shard = Shard(CONFIG)
    await shard.start()
    pids = [process.pid for process in shard.processes]
    looping = Validate("def f(x):\n    while True: pass", ("1",))
    under_way = asyncio.create_task(shard.validate(looping))
    await let_others_run()
    await shard.close()
    assert (await under_way).status == "infra"
    assert (await shard.validate(looping)).status == "infra"
    task = Task(TaskType.DEDUCTION, "def f(x): return x", ("1",), ("1",), "k")
    assert [v.status for v in (await shard.verify(Verify(task, ("1", "2")))).verdicts] == ["infra"] * 2
    assert not any(alive(pid) for pid in pids)
