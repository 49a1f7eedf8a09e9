"""What the benchmark counts is there to be counted; nothing here depends on how fast anything is."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from azr.bench.executor import parts, soak, whole
from azr.bench.executor.load import Job, closed, opened
from azr.bench.executor.meter import Footprint, cpu, faults, footprints, own_cpu
from azr.bench.executor.workload import ANSWERS, INPUTS, Case, cases, endless
from azr.bench.figures import Figure, Reading, collect, percentile, table
from azr.cli import MISUSED, main
from azr.rows import Row
from common.config import ExecutorConfig
from common.jobs import Validate, Validation, Verdicts, Verify
from common.types import Status
from executor.shard import Shard
from tests.fakes.executor import FakeExecutor

CONFIG = ExecutorConfig(cache=0, memory_mb=128)
CASE = Case("def f(x):\n    return x + 1", "1", "2")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shard() -> AsyncIterator[Shard]:
    shard = Shard(CONFIG)
    await shard.start()
    yield shard
    await shard.close()


def values(readings: list[Reading]) -> dict[str, float]:
    return {reading.what: reading.value for reading in readings}


@pytest.mark.parametrize(("share", "value"), [(0.5, 50), (0.99, 99), (1.0, 100), (0.001, 1)])
def test_percentiles_are_values_that_occurred(share: float, value: float) -> None:
    assert percentile(list(range(100, 0, -1)), share) == value


def test_repeats_become_one_figure() -> None:
    readings = [
        Reading("a", "x", "ms", 3),
        Reading("b", "x", "s", 9),
        Reading("a", "x", "ms", 1),
        Reading("a", "x", "ms", 8),
    ]
    first, second = collect(readings, {("a", "x"): "<= 2"})
    assert first == Figure("a", "x", "ms", (3, 1, 8), "<= 2") and first.median == 3
    assert second == Figure("b", "x", "s", (9,))
    lines = [line.split() for line in table([first, second]).splitlines()]
    assert lines[1:] == [["a"], ["x", "3", "1", "8", "ms", "<=", "2"], ["b"], ["x", "9", "9", "9", "s"]]


def test_cpu_time_of_a_process_counts_children_once_they_are_reaped() -> None:
    def burn() -> None:
        start = os.times()
        while os.times().user - start.user < 0.1:
            pass

    before, own = cpu(os.getpid()), own_cpu(os.getpid())
    burn()
    assert own_cpu(os.getpid()) - own > 0.05
    child = os.fork()
    if not child:
        burn()
        os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
    assert footprints([os.getpid()])[os.getpid()].zombies == 1
    assert cpu(child) > 0
    os.waitpid(child, 0)
    assert cpu(os.getpid()) - before > own_cpu(os.getpid()) - own + 0.05
    assert footprints([os.getpid()])[os.getpid()].zombies == 0


def test_a_footprint_counts_memory_and_descriptors() -> None:
    me = os.getpid()
    before, faulted = footprints([me])[me], faults(me)
    pipe, block = os.pipe(), bytearray(os.urandom(32 << 20))
    assert faults(me) > faulted
    after = footprints([me])[me]
    assert before.pss and after.pss and before.descriptors and after.descriptors
    assert after.descriptors - before.descriptors == 2
    assert after.rss - before.rss > len(block) / 2 and after.pss - before.pss > len(block) / 2
    for end in pipe:
        os.close(end)


def test_growth_is_told_in_per_cent_and_what_cannot_be_read_is_not_told() -> None:
    before, after = Footprint(100 << 20, None, 3, 0), Footprint(104 << 20, None, 5, 1)
    text = soak.table([soak.Growth("checker", 2, before, after)])
    assert "checker (2 starts)" in text and "+4.00%" in text and "unreadable" in text
    assert "3 > 5" in text and "0 > 1" in text


@pytest.mark.asyncio(loop_scope="module")
async def test_only_programs_that_run_become_cases(shard: Shard) -> None:
    rows = [Row(1, CASE.program, ("1", "2")), Row(2, "def f(x): return y", ("1",)), Row(3, "f =", ("1",))]
    assert await cases(rows, shard) == [CASE]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("job", "executions"),
    [
        (CASE.single(), 2),
        (CASE.several(), 2 * INPUTS),
        (CASE.deduction(), 0),
        (CASE.abduction(), 2 * ANSWERS),
        (CASE.induction(), 2 * 3 * ANSWERS),
    ],
    ids=["single", "several", "deduction", "abduction", "induction"],
)
async def test_a_job_is_run_as_often_as_its_name_says(job: Job, executions: int, shard: Shard) -> None:
    before = shard.executions
    found = values(await whole.costs("section", shard, [job], width=2))
    assert shard.executions - before == executions  # each on both sides
    assert found["jobs that were not ok"] == 0
    assert found["CPU per job"] == pytest.approx(sum(v for what, v in found.items() if what.startswith("CPU per job,")))


@pytest.mark.asyncio(loop_scope="module")
async def test_all_answers_of_the_tasks_are_right(shard: Shard) -> None:
    for job in (CASE.deduction(), CASE.abduction(), CASE.induction()):
        assert all(verdict.correct for verdict in (await shard.verify(job)).verdicts)


@pytest.mark.asyncio(loop_scope="module")
async def test_fork_servers_and_checker_are_measured_alone(shard: Shard) -> None:
    server = shard.sides[0].processes[0]
    programs = await parts.compiled([CASE, replace(CASE, given="5", output="6")], shard.reader)
    assert [len(program.inputs) for program in programs] == [INPUTS, INPUTS]
    assert all(program.confined for program in programs)
    found = values(await parts.forks(server, programs, CONFIG)) | values(await parts.checker(shard.reader, [CASE]))
    assert all(value > 0 for value in found.values()) and len(found) == 14


@pytest.mark.asyncio(loop_scope="module")
async def test_a_soak_runs_what_it_is_told_to_and_looks_at_every_process(shard: Shard) -> None:
    before = shard.executions
    growths = await soak.soak(shard, [CASE], 100, width=4)
    assert shard.executions - before >= 110
    assert [growth.name for growth in growths] == ["supervisor", *[process.name for process in shard.processes]]
    assert all(growth.starts == 1 and growth.after.zombies == 0 for growth in growths)
    assert all(growth.before.rss > 0 and growth.after.descriptors for growth in growths)


@pytest.mark.asyncio(loop_scope="module")
async def test_endless_programs_never_end(shard: Shard) -> None:
    assert endless(1) != endless(2)
    assert (await shard.validate(endless(1))).status == Status.TIMEOUT_CPU


def test_a_bench_that_cannot_be_made_says_why_first(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"code": "def f(x): return y", "input": "1"}')
    assert main(["execute", str(file), "--bench", "--json", str(tmp_path / "none" / "out.json")]) == MISUSED
    assert "none/out.json: No such file or directory" in capfd.readouterr().err
    assert main(["execute", str(file), "--bench"]) == MISUSED
    assert "there is nothing to measure" in capfd.readouterr().err


class Crowd:
    """Implements common.jobs.Executor; answers nobody before `size` jobs wait."""

    def __init__(self, size: int) -> None:
        self._missing, self._complete = size, asyncio.Event()

    async def validate(self, job: Validate) -> Validation:
        self._missing -= 1
        if not self._missing:
            self._complete.set()
        await self._complete.wait()
        return Validation(Status.OK)

    async def verify(self, job: Verify) -> Verdicts:
        raise NotImplementedError


async def test_closed_load_keeps_to_its_width() -> None:
    executor = FakeExecutor()
    assert await closed(executor, [CASE.single()] * 20, 3) == {Status.OK: 20}
    assert executor.most_running == 3


async def test_open_load_arrives_whether_or_not_answers_come() -> None:
    jobs = [CASE.single()] * 20
    async with asyncio.timeout(60):
        found = await opened(Crowd(len(jobs)), jobs, rate=1e9, seed=0)
    assert [timed.job for timed in found] == jobs
    assert all(timed.status == Status.OK and timed.seconds > 0 for timed in found)
