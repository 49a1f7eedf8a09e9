"""kill -9 of everything an executor is made of, in the middle of many jobs: no verdict is lost, changed or doubled.

Real shard processes behind real sockets, and the pool as an actor has it. Another shard is alive at each kill, so
`infra` is no excuse.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from azr.wiring import Endpoint
from common.clock import SystemClock
from common.errors import PartFailed
from common.jobs import Validate, Verify
from common.transport import Client
from common.types import Task, TaskType
from executor.pool import Pool
from tests.executor.shard_process import network
from tests.project import ROOT

JOBS = 10_000
UNDER_WAY = 32  # at a time
GAP = JOBS // 40  # answers of a shard between two kills in it: nothing that met the first is there at the second
SAFETY_NET = 850.0  # seconds; start of a shard included
SETTINGS = json.dumps({"cpu_limit": 1.0, "wall_limit": 30.0, "credits": UNDER_WAY})  # no verdict depends on the load

Expected = tuple[object, ...]  # (status, outputs) of a validation, (correct, status) of each answer


@dataclass(eq=False)
class Watched:
    """A shard process with the client that asks it."""

    process: asyncio.subprocess.Process
    client: Client
    answered: int = 0
    failed: int = 0
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def request(self, message: Any) -> Any:
        try:
            reply = await self.client.request(message)
        except PartFailed:
            self.failed += 1
            raise
        async with self._changed:
            self.answered += 1
            self._changed.notify_all()
        return reply

    async def more(self, answers: int) -> None:
        """Return after so many more answers."""
        goal = self.answered + answers
        async with self._changed:
            await self._changed.wait_for(lambda: self.answered >= goal)

    def children(self, script: str) -> list[int]:
        """Its sandboxed processes that run this script."""
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        pids = [pid for task in tasks for pid in (task / "children").read_text().split()]
        return [int(pid) for pid in pids if script in Path(f"/proc/{pid}/cmdline").read_text()]


class Site:
    """Starts shards. What is left of them ends with the test, however that ends."""

    def __init__(self, stack: AsyncExitStack, folder: Path) -> None:
        self._stack, self._folder, self._network = stack, folder, network(folder, SETTINGS)

    async def start(self, part: str) -> Watched:
        """PartFailed if it does not come up; why is in its log."""
        module = "tests.executor.shard_process"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, part, str(self._folder), SETTINGS),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        self._stack.push_async_callback(self._end, process)
        client = self._network.client(Endpoint(self._network.bind_address(part)), "actor", 0, None, part)
        await client.connect(60.0)
        self._stack.push_async_callback(client.close)
        return Watched(process, client)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def ended(pid: int) -> None:
    """Return when no process `pid` runs; of whoever it is a child."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(descriptor, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def job(n: int) -> tuple[Validate | Verify, Expected]:
    """A job like no other, but for one in fifty that was there shortly before, and what must come of it."""
    if n % 50 == 49:
        return job(n - 5)
    program, outputs = f"def f(x):\n    return x * {n + 1} + {n % 7}", [str(x * (n + 1) + n % 7) for x in (3, 4, 5)]
    pair = ("3",), (outputs[0],)
    right, wrong = (True, "ok"), (False, "ok")
    match n % 6:
        case 0:
            return Validate(program, ("3", "4", "5")), ("ok", tuple(outputs))
        case 1:
            return Validate(f"def f(x):\n    return (x + {n}) // 0", ("3",)), ("error", ())
        case 2 if n % 100 == 2:  # beyond the first slice of CPU time
            heavy = f"def f(x):\n    return x + sum(range(2000000)) + {n}"
            return Validate(heavy, ("3",)), ("ok", (str(3 + 2000000 * 1999999 // 2 + n),))
        case 2:
            return Validate(f"def f(x):\n    return x +* {n}", ("3",)), ("syntax", ())
        case 3:
            answers = (outputs[1], outputs[0], f" {outputs[0]}")
            return Verify(Task(TaskType.DEDUCTION, program, *pair, str(n)), answers), (wrong, right, right)
        case 4:
            answers = ("4", "1 + 2", "x=3")
            return Verify(Task(TaskType.ABDUCTION, program, *pair, str(n)), answers), (wrong, right, right)
        case _:
            hidden = Task(TaskType.INDUCTION, program, ("3", "4", "5"), tuple(outputs), str(n), shown=1)
            other = f"def f(y):\n    return {n % 7} + y * {n + 1}"
            return Verify(hidden, (other, f"def f(x):\n    return {n} - x")), (right, wrong)


async def said(pool: Pool, asked: Validate | Verify) -> Expected:
    if isinstance(asked, Validate):
        validation = await pool.validate(asked)
        return validation.status, validation.outputs
    return tuple((verdict.correct, verdict.status) for verdict in (await pool.verify(asked)).verdicts)


async def work(pool: Pool, numbers: Iterable[int], verdicts: list[tuple[int, Expected]]) -> None:
    for n in numbers:
        verdicts.append((n, await said(pool, job(n)[0])))


async def kill(shard: Watched, pids: Sequence[int]) -> list[int]:
    """One after the other; those killed."""
    for pid in pids:
        await shard.more(GAP)
        os.kill(pid, signal.SIGKILL)
    return list(pids)


@pytest.mark.real
async def test_no_death_changes_a_verdict(tmp_path: Path) -> None:
    async with asyncio.timeout(SAFETY_NET), AsyncExitStack() as stack, asyncio.TaskGroup() as group:
        site = Site(stack, tmp_path)
        first, second = await site.start("executor-0"), await site.start("executor-1")
        pool = Pool([first, second], network(tmp_path, SETTINGS).config.executor, SystemClock())
        room = pool.room
        numbers, verdicts = iter(range(JOBS)), list[tuple[int, Expected]]()
        working = [group.create_task(work(pool, numbers, verdicts)) for _ in range(UNDER_WAY)]

        servers, checkers = first.children("zygote.py"), first.children("checker.py")
        assert len(servers) >= 2 and len(checkers) == 1
        killed = {*await kill(first, servers), *await kill(first, checkers)}

        left = second.children(".py")
        assert left
        await second.more(GAP)
        os.kill(second.process.pid, signal.SIGKILL)
        await second.process.wait()
        third = await site.start("executor-1")
        pool.replace(1, third)
        await second.client.close()
        await asyncio.gather(*map(ended, left))
        assert not working[0].done(), "the jobs were over too early: the last kills met none"

        await asyncio.wait(working)
        assert sorted(n for n, _ in verdicts) == list(range(JOBS))
        assert {n: got for n, got in verdicts if got != job(n)[1]} == {}
        assert second.failed > 0 and third.answered > 0
        assert len(first.children("zygote.py")) == len(servers) and len(first.children("checker.py")) == len(checkers)
        assert not killed & {*first.children(".py")}
        assert pool.room == room
