"""The analysis process seen from the intake: fed without waiting, whatever becomes of it. Scripts play its part."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import pytest

from common import messages as m
from common.messages import Tasks
from common.types import Group, Kind
from learner.analyst import FAILURES, WAITING, Analyst, Row, read_batches, write_batch
from tests.fakes.groups import a_group, a_sample, a_task
from tests.fakes.peers import Stage, small

SAFETY_NET = 60.0  # seconds; no test is meant to get near it
TASKS = {task.key: task for task in (a_task("a"), a_task("b"), a_task("c"))}
A, B, C = TASKS
BATCH = [(3, A), (11, B), (19, C)]  # leases, and what their proposers were shown

READ = """import sys, json, os
from learner.analyst import read_batches
for step, groups, shown in read_batches(sys.stdin.buffer):
"""
ECHO = READ + " print(json.dumps({'groups': [g.lease for g in groups], 'known': sorted(shown)}), flush=True)\n"
SLOW = (
    "import os, sys; gate = os.open(sys.argv[1], os.O_RDONLY)\n"
    + READ
    + " os.read(gate, 1); print(json.dumps({}), flush=True)\n"
)
FAILS = READ + " print(json.dumps({'error': 'no such thing'} if step % 2 else {'fine': 1}), flush=True)\n"
DIES = READ + " os._exit(3)\n"
BABBLES = READ + " print('figures', flush=True)\n"


@contextmanager
def _gate(path: Path) -> Iterator[int]:
    """A pipe in the file system; a byte written to it lets one batch of SLOW through."""
    os.mkfifo(path)
    descriptor = os.open(path, os.O_RDWR)  # both ends, so that opening waits for nobody
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def batch(*made: tuple[int, str]) -> list[Group]:
    kind = Kind.PROPOSE_DEDUCTION
    return [dataclasses.replace(a_group(lease, kind, [a_sample(kind)]), references=(key,)) for lease, key in made]


class Listener:
    """Collects rows, and waits for them."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._came = asyncio.Event()

    def __call__(self, row: Row) -> None:
        self.rows.append(row)
        self._came.set()

    async def until(self, count: int) -> list[Row]:
        while len(self.rows) < count:
            self._came.clear()
            await asyncio.wait_for(self._came.wait(), SAFETY_NET)
        return self.rows


def python(script: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-c", script, *arguments)


def test_a_batch_travels_whole() -> None:
    stream = BytesIO()
    write_batch(stream, 7, batch(*BATCH[:2]), Tasks((TASKS[B],)))
    write_batch(stream, 8, [], Tasks(()))
    stream.seek(0)
    (first, groups, shown), (second, none, nothing) = read_batches(stream)
    assert (first, [(g.lease, *g.references) for g in groups], shown) == (7, BATCH[:2], {B: TASKS[B]})
    assert (second, none, nothing) == (8, [], {})


async def test_rows_come_back_with_what_proposers_were_shown() -> None:
    listener = Listener()
    analyst = Analyst(python(ECHO), listener, TASKS.get)
    analyst.trained(5, batch(BATCH[1], BATCH[0], (27, A)))
    await listener.until(1)
    analyst.trained(6, batch((19, C), (35, "not in the book")))
    assert await listener.until(2) == [
        {"step": 5, "groups": [11, 3, 27], "known": [A, B], "analysis/skipped": 0, "analysis/lost": 0},
        {"step": 6, "groups": [19, 35], "known": [C], "analysis/skipped": 0, "analysis/lost": 0},
    ]
    await analyst.close(SAFETY_NET)
    assert analyst.counts == {"analysed": 2}


async def test_what_was_handed_over_is_finished_before_the_end() -> None:
    listener = Listener()
    analyst = Analyst(python(ECHO), listener, TASKS.get)
    analyst.trained(0, batch(*BATCH))
    await analyst.close(SAFETY_NET)
    assert [row["step"] for row in listener.rows] == [0]


async def test_batches_are_skipped_and_counted_while_it_lags(tmp_path: Path) -> None:
    listener = Listener()
    with _gate(tmp_path / "gate") as gate:
        analyst = Analyst(python(SLOW, str(tmp_path / "gate")), listener, TASKS.get)
        for step in range(10):
            analyst.trained(step, batch(*BATCH))
        skipped = analyst.counts["skipped"]
        assert 10 - WAITING - 1 <= skipped <= 10 - WAITING  # one may have been taken up already
        os.write(gate, bytes(10 - skipped))
        await listener.until(10 - skipped)
        steps = [row["step"] for row in listener.rows]
        assert steps[:WAITING] == list(range(WAITING)) and steps == sorted(steps) and len(steps) == 10 - skipped
        assert listener.rows[-1]["analysis/skipped"] == skipped
        await analyst.close(SAFETY_NET)
        assert analyst.counts == {"skipped": skipped, "analysed": 10 - skipped}


async def test_without_patience_it_ends_at_once_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    with _gate(tmp_path / "gate"):
        analyst = Analyst(python(SLOW, str(tmp_path / "gate")), Listener(), TASKS.get)
        analyst.trained(0, batch(*BATCH))
        analyst.trained(1, batch(*BATCH))
        await asyncio.wait_for(analyst.close(0.0), SAFETY_NET)
        assert analyst.counts["analysed"] == 0
        analyst.trained(2, batch(*BATCH))
        assert analyst.counts["skipped"] + analyst.counts["lost"] == 3


async def test_a_batch_it_cannot_do_is_lost_and_the_next_one_is_not() -> None:
    listener = Listener()
    analyst = Analyst(python(FAILS), listener, TASKS.get)
    for step in range(4):
        analyst.trained(step, batch(*BATCH))
        await listener.until(step + 1)
    assert [("fine" in row, row["analysis/lost"]) for row in listener.rows] == [
        (True, 0), (False, 1), (True, 1), (False, 2),
    ]  # fmt: skip
    await analyst.close(SAFETY_NET)


@pytest.mark.parametrize("command", [python(DIES), python(BABBLES), python("exit(1)"), ("/no/such/program",)])
async def test_a_process_that_fails_again_and_again_is_given_up(command: Sequence[str]) -> None:
    listener = Listener()
    analyst = Analyst(command, listener, TASKS.get)
    for step in range(FAILURES):
        analyst.trained(step, batch(*BATCH))
        await listener.until(step + 1)
    analyst.trained(FAILURES, batch(*BATCH))
    await analyst.close(SAFETY_NET)
    assert analyst.counts == {"lost": FAILURES, "skipped": 1}


async def test_no_command_no_process() -> None:
    analyst = Analyst((), Listener(), TASKS.get)
    analyst.trained(0, batch(*BATCH))
    await analyst.close(0.0)
    assert not analyst.counts


def test_it_dies_with_the_intake() -> None:
    """Every process of the intake holds its standard error, which therefore ends when the last one has."""
    intake = f"""
import asyncio, os, signal, sys
from learner.analyst import Analyst
from tests.learner.test_analyst import BATCH, TASKS, Listener, batch
async def main():
    listener = Listener()
    analyst = Analyst((sys.executable, "-c", {ECHO!r}), listener, TASKS.get)
    analyst.trained(0, batch(*BATCH))
    await listener.until(1)
    os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""
    process = subprocess.Popen(python(intake), stderr=subprocess.PIPE)
    process.communicate(timeout=SAFETY_NET)
    assert process.returncode == -9


async def test_an_intake_has_its_batches_analysed_behind_their_steps(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    stage = Stage(small(eta=0), tmp_path, analysis=python(ECHO))
    try:
        await stage.begin(0)
        await stage.poll("trainer", 0, m.WantShare(0, 0))
        leases = await stage.lease()
        await stage.fulfil(leases)
        await stage.train(0)
        await stage.intake.analyst.close(SAFETY_NET)
        trained, analysed = [json.loads(line) for line in metrics.read_text().splitlines()]
    finally:
        summary = await stage.close()
    shown = {task.key for lease in leases for task in lease.references}
    assert trained["step"] == analysed["step"] == 0
    assert (analysed["groups"], analysed["known"]) == (sorted(lease.id for lease in leases), sorted(shown))
    assert summary["analysis"] == {"analysed": 1}
