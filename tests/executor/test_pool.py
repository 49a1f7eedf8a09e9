"""The client's side: which shard is asked, and what happens when shards fail."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from common.errors import PartFailed, WireError
from common.jobs import Validate, Validation, Verdict, Verdicts, Verify
from common.types import Status, Task, TaskType
from executor.cache import Cache
from executor.pool import Pool, order
from executor.service import serve

JOB = Validate("def f(x): return x", ("1",))
TASK = Task(TaskType.ABDUCTION, JOB.program, ("1",), ("1",), "k")


class Answering:
    """A shard that knows every answer."""

    def __init__(self) -> None:
        self.asked = 0

    async def validate(self, job: Validate) -> Validation:
        self.asked += 1
        return Validation(Status.OK, outputs=job.inputs)

    async def verify(self, job: Verify) -> Verdicts:
        self.asked += 1
        return Verdicts((Verdict(True, Status.OK),) * len(job.answers))

    async def request(self, message: Any) -> Any:
        return await serve(self, message)


class Failing:
    def __init__(self, error: Exception) -> None:
        self.error = error

    async def request(self, message: Any) -> Any:
        raise self.error


class Confused:
    async def request(self, message: Any) -> Any:
        return Verdicts(()) if isinstance(message, Verify) else None


@pytest.mark.parametrize("broken", [Failing(WireError("gone")), Failing(PartFailed("executor 0", "gone")), Confused()])
async def test_the_next_shard_answers_for_one_that_fails(broken: Any) -> None:
    first, second = order(JOB.program, 2)
    shards: list[Any] = [None, None]
    shards[first], shards[second] = broken, Answering()
    assert (await Pool(shards).validate(JOB)).outputs == ("1",)


async def test_without_any_shard_the_status_is_infra() -> None:
    pool = Pool([Failing(WireError("gone")), Confused()])
    assert (await pool.validate(JOB)).status == "infra"
    reply = await pool.verify(Verify(TASK, ("1", "2")))
    assert [(v.correct, v.status) for v in reply.verdicts] == [(False, "infra")] * 2


async def test_equal_programs_go_to_the_same_shard() -> None:
    shards = [Answering(), Answering(), Answering()]
    pool = Pool(shards)
    for _ in range(5):
        await pool.validate(JOB)
        await pool.verify(Verify(TASK, ("1",)))
    assert sorted(shard.asked for shard in shards) == [0, 0, 10]


def test_programs_spread_and_stay_when_a_shard_is_added() -> None:
    programs = [f"def f(x): return {n}" for n in range(300)]
    counts = Counter(order(program, 3)[0] for program in programs)
    assert min(counts.values()) > 60
    assert all(order(p, 4)[0] in (order(p, 3)[0], 3) for p in programs)


async def test_what_is_no_job_is_refused() -> None:
    with pytest.raises(WireError, match="str"):
        await serve(Answering(), "hello")


def test_the_cache_forgets_what_was_used_least_recently() -> None:
    cache: Cache[int] = Cache(2)
    cache.put(b"a", 1)
    cache.put(b"b", 2)
    assert cache.get(b"a") == 1
    cache.put(b"c", 3)
    assert (cache.get(b"a"), cache.get(b"b"), cache.get(b"c"), len(cache)) == (1, None, 3, 2)
    nothing: Cache[int] = Cache(0)
    nothing.put(b"a", 1)
    assert nothing.get(b"a") is None


def test_an_executor_process_never_imports_torch() -> None:
    code = "import sys, executor.shard, executor.service, executor.pool; sys.exit('torch' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, timeout=60).returncode == 0
