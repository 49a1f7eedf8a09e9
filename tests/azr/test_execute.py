"""`azr execute`: what rows it takes, what it prints and in which order, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from azr.cli import FAILED, INTERRUPTED, MISUSED, main
from azr.execute import BROKEN_PIPE, Output, Tally, run, started
from azr.rows import Row, read
from azr.selftest import Confinement
from common.config import ExecutorConfig
from common.errors import ConfigError, PartFailed, SandboxUnavailable
from common.jobs import Validate, Validation
from common.types import Status
from executor.selftest import PROBES
from executor.shard import Shard

PROGRAM = "def f(x): return x"
GOOD = {"id": "a", "code": PROGRAM, "inputs": ["1"]}
LOOP = "def f(x):\n    while True:\n        x += 1"
AZR = (sys.executable, "-m", "azr.cli", "execute")


def written(folder: Path, *rows: object) -> str:
    file = folder / "rows.jsonl"
    file.write_text("".join(row if isinstance(row, str) else json.dumps(row) + "\n" for row in rows))
    return str(file)


def printed(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_rows_come_in_two_forms_and_may_lack_an_id(tmp_path: Path) -> None:
    crux = {"code": PROGRAM, "input": "(1, ), 'b'", "output": "1"}
    file = written(tmp_path, GOOD, "\n", crux, {**GOOD, "id": 7, "output": 5, "level": "hard"})
    assert read(file) == [
        Row("a", PROGRAM, ("1",)),
        Row(3, PROGRAM, ("(1, ), 'b'",)),
        Row(7, PROGRAM, ("1",)),
    ]


def test_wanted_outputs_are_read_on_demand(tmp_path: Path) -> None:
    rows = {**GOOD, "inputs": ["1", "2"], "outputs": ["1", "2"]}, {"code": PROGRAM, "input": "1", "output": "1"}
    assert [row.outputs for row in read(written(tmp_path, *rows), outputs=True)] == [("1", "2"), ("1",)]
    assert [row.outputs for row in read(written(tmp_path, *rows))] == [(), ()]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"id": "a", ', "not JSON"),
        (b'{"id": "\xff"}'.decode("latin-1"), 'no "code"'),
        ("[" * 100_000, "not JSON"),
        ("[1]", "[1] is no object"),
        ({"code": PROGRAM}, 'neither "inputs" nor "input"'),
        ({"inputs": ["1"]}, 'no "code"'),
        ({**GOOD, "code": None}, '"code" is null'),
        ({**GOOD, "id": [1]}, '"id" is [1]'),
        ({**GOOD, "id": True}, '"id" is true'),
        ({**GOOD, "input": "1"}, 'both "input" and "inputs"'),
        ({**GOOD, "inputs": []}, "at least one element"),
        ({**GOOD, "inputs": "1"}, 'is "1", not a list'),
        ({**GOOD, "inputs": ["1", 2]}, 'the input 2 is not an argument list as text: write "2"'),
        ({**GOOD, "inputs": ["x" * 5000, ["y" * 5000]]}, "..."),
    ],
)
def test_a_row_that_cannot_be_read_is_named_with_file_and_line(line: object, message: str, tmp_path: Path) -> None:
    file = written(tmp_path, GOOD, line if isinstance(line, str) else json.dumps(line), "\n", GOOD)
    with pytest.raises(ConfigError) as caught:
        read(file)
    text = str(caught.value)
    assert text.startswith(f"{file}, line 2: ") and message in text and "Nothing was run" in text and len(text) < 1000


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows").write_bytes(b'{"code": "\xff", "input": "1"}')
    with pytest.raises(ConfigError, match="line 1: not JSON"):
        read(str(tmp_path / "rows"))


@pytest.mark.parametrize(
    ("outputs", "message"),
    [({}, "neither"), ({"outputs": ["1", "2"]}, "1 inputs and 2 outputs"), ({"output": 1}, "the output 1 is not")],
)
def test_to_check_each_input_needs_its_output(outputs: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"line 1: .*{message}"):
        read(written(tmp_path, {**GOOD, **outputs}), outputs=True)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name one file of rows"),
        (["a.jsonl", "b.jsonl"], "a.jsonl and b.jsonl"),
        (["learner.steps=3", "a.jsonl"], "executor.KEY=VALUE"),
        (["nowhere.jsonl"], "cannot read nowhere.jsonl"),
        (["nowhere.jsonl", "executor.cpu_limt=1"], "executor.cpu_limit"),
        (["nowhere.jsonl", "executor.memory_mb=1"], "executor.memory_mb must be at least"),
        (["nowhere.jsonl", "--jobs", "0"], "--jobs must be at least 1"),
        (["nowhere.jsonl", "--executions", "5"], "belong to --bench"),
        (["nowhere.jsonl", "--self-test"], "reads no file"),
        (["nowhere.jsonl", "--bench", "--jobs", "2"], "not for --bench"),
        (["--self-test", "--no-policy"], "or --self-test"),
    ],
)
def test_wrong_usage_is_told_before_anything_starts(
    words: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["execute", *words]) == MISUSED
    found = capfd.readouterr()
    assert message in found.err and not found.out


def test_a_broken_row_keeps_the_others_from_running(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["execute", written(tmp_path, GOOD, {"code": PROGRAM})]) == MISUSED
    found = capfd.readouterr()
    assert "line 2" in found.err and not found.out


def test_answers_come_in_the_order_of_the_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    programs = [LOOP, PROGRAM, "def f(x): return 1 / x", "def f(x) return x", "import os\ndef f(x): return x"]
    rows = [{"id": n, "code": code, "inputs": ["0", "[0, 'a']"][: 1 + (n == 1)]} for n, code in enumerate(programs)]
    assert main(["execute", written(tmp_path, *rows), "--jobs", "2", "executor.cpu_limit=0.05"]) == 0
    found = printed(capfd.readouterr().out)
    assert [row["id"] for row in found] == [0, 1, 2, 3, 4]
    assert [row["status"] for row in found] == ["timeout_cpu", "ok", "error", "syntax", "policy"]
    assert found[1]["outputs"] == ["0", "[0, 'a']"] and found[0]["outputs"] == []
    assert found[2]["detail"] == "ZeroDivisionError"


def test_without_policy_the_sandbox_alone_stands_in_the_way(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    attack = "import re\ndef f(x): return eval('re').enum.sys.modules['posix'].open(x, 0)"
    programs = ("def f(x): return eval('1 + 1')", attack)
    file = written(tmp_path, *[{"code": code, "input": "'/'"} for code in programs])
    assert main(["execute", file, "--jobs", "1"]) == 0
    assert [row["status"] for row in printed(capfd.readouterr().out)] == ["policy", "policy"]
    assert main(["execute", file, "--jobs", "1", "--no-policy"]) == 0
    first, second = printed(capfd.readouterr().out)
    assert (first["status"], first["outputs"]) == ("ok", ["2"])
    assert (second["status"], second["detail"]) == ("error", "PermissionError")


def test_check_compares_as_text_and_by_value(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    agreeing = {**GOOD, "outputs": ["1"]}, {"id": "b", "code": PROGRAM, "input": "{2, 1}", "output": "{2, 1.0}"}
    assert main(["execute", written(tmp_path, *agreeing), "--jobs", "1", "--check"]) == 0
    found = capfd.readouterr()
    assert len(printed(found.out)) == 2
    assert found.err == "azr: 2 rows: 2 ok (1 text-identical, 1 equal by value only, 0 different)\n"


def test_a_difference_is_named_and_fails_the_check(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    wrong = [
        {**GOOD, "outputs": ["1"]},
        {"id": "other", "code": PROGRAM, "inputs": ["1", "2"], "outputs": ["1.0", "3"]},
        {"id": "code", "code": PROGRAM, "input": "1", "output": "__import__('os').getpid()"},
        {"id": "broken", "code": "def f(x): return y", "input": "1", "output": "1"},
    ]
    assert main(["execute", written(tmp_path, *wrong), "--jobs", "1", "--check"]) == FAILED
    found = capfd.readouterr()
    assert [row["status"] for row in printed(found.out)] == ["ok", "ok", "ok", "error"]
    assert found.err.splitlines() == [
        "azr: other: f(2) gives 2 and should give 3",
        "azr: code: f(1) gives 1 and should give __import__('os').getpid()",
        "azr: broken: error NameError",
        "azr: 4 rows: 3 ok (1 text-identical, 0 equal by value only, 2 different), 1 error",
    ]


def test_a_check_of_nothing_is_refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["execute", written(tmp_path), "--check"]) == MISUSED
    assert "no rows" in capfd.readouterr().err


def test_a_tally_adds_up() -> None:
    tally = Tally(Counter({Status.OK: 7, Status.ERROR: 2, Status.MEMORY: 1}), identical=3, different=5)
    expected = "10 rows: 7 ok (3 text-identical, 2 equal by value only, 2 different), 2 error, 1 memory"
    assert str(tally) == expected


def test_standard_input_and_a_reader_that_has_seen_enough() -> None:
    rows = "".join(json.dumps({"code": f"def f(x): return x * {n}", "input": "'abc'"}) + "\n" for n in range(200))
    with subprocess.Popen([*AZR, "-", "--jobs", "1"], stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(rows)
        process.stdin.close()
        assert json.loads(process.stdout.readline())["outputs"] == ["''"]
        process.stdout.close()
        assert process.wait() == BROKEN_PIPE
        assert process.stderr.read() == ""


def test_an_interrupt_leaves_no_process(tmp_path: Path) -> None:
    loops = [{"code": LOOP.replace("1", str(n)), "input": "1"} for n in range(2, 500)]
    file = written(tmp_path, GOOD, *loops)
    with subprocess.Popen([*AZR, file, "--jobs", "1"], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline()
        started = [os.pidfd_open(pid) for pid in children(process.pid)]
        assert len(started) == 5
        process.send_signal(signal.SIGINT)
        assert process.wait() == INTERRUPTED
        assert process.stderr.read() == "azr: interrupted\n"
    for child in started:
        assert select.select([child], [], [], 60)[0], "a process of a shard outlived its command"
        os.close(child)


def children(parent: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]


class ScriptedShard(Shard):
    """A shard without processes; every job ends as `validation` says, or never if there is none."""

    def __init__(self, validation: Validation | None = None, failure: str = "", starts: bool = True) -> None:
        super().__init__(ExecutorConfig())
        self._validation, self._why, self._starts = validation, failure, starts
        self.asked: list[Validate] = []
        self.running = self.most_running = 0
        self.closed = False

    async def start(self) -> None:
        if not self._starts:
            raise SandboxUnavailable("no seccomp here")

    async def close(self) -> None:
        self.closed = True

    async def failed(self) -> SandboxUnavailable:
        if not self._why:
            await asyncio.Event().wait()
        return SandboxUnavailable(self._why)

    async def validate(self, job: Validate) -> Validation:
        self.asked.append(job)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        await asyncio.sleep(0)
        if self._validation is None:
            await asyncio.Event().wait()
        self.running -= 1
        assert self._validation is not None
        return self._validation


def rows(count: int) -> list[Row]:
    return [Row(n, PROGRAM, ("1",)) for n in range(count)]


async def test_work_in_flight_is_bounded_and_shared(capfd: pytest.CaptureFixture[str]) -> None:
    shards = [ScriptedShard(Validation(Status.OK, outputs=("1",))) for _ in range(2)]
    assert await run(rows(50), shards, 3, check=False) == 0
    assert [row["id"] for row in printed(capfd.readouterr().out)] == list(range(50))
    assert [shard.most_running for shard in shards] == [3, 3]
    assert sum(len(shard.asked) for shard in shards) == 50 and all(shard.asked and shard.closed for shard in shards)


async def test_a_shard_that_cannot_start_closes_all() -> None:
    shards: Sequence[ScriptedShard] = [ScriptedShard(), ScriptedShard(starts=False)]
    with pytest.raises(SandboxUnavailable, match="no seccomp here"):
        async with started(shards):
            pytest.fail("not all have started")
    assert all(shard.closed for shard in shards)


async def test_a_sandbox_that_is_lost_ends_the_command() -> None:
    shards = [ScriptedShard(), ScriptedShard(failure="the fork server did not come up")]
    with pytest.raises(SandboxUnavailable, match="did not come up"):
        await run(rows(5), shards, 1, check=False)
    assert all(shard.closed for shard in shards)


async def test_rows_without_an_answer_are_printed_and_counted(capfd: pytest.CaptureFixture[str]) -> None:
    shards = [ScriptedShard(Validation(Status.INFRA, "a reason"))]
    with pytest.raises(PartFailed, match="no answer to 2 of 2 rows"):
        await run(rows(2), shards, 1, check=False)
    found = printed(capfd.readouterr().out)
    assert [row["status"] for row in found] == ["infra", "infra"] and found[0]["detail"] == "a reason"


async def test_a_slow_reader_holds_up_the_writer_alone() -> None:
    ours, theirs = os.pipe()
    data = os.urandom(1 << 18)  # more than a pipe holds
    writing = asyncio.create_task(Output(theirs).write(data))
    await asyncio.sleep(0)  # comes back, although nobody reads and the pipe is full
    assert not writing.done() and not select.select([], [theirs], [], 0)[1]
    seen = b""
    while len(seen) < len(data):
        await asyncio.sleep(0)
        if select.select([ours], [], [], 0)[0]:
            seen += os.read(ours, 1 << 16)
    await writing
    assert seen == data
    os.close(ours)
    with pytest.raises(BrokenPipeError):
        await Output(theirs).write(b"x")
    os.close(theirs)


def test_the_self_test_names_every_layer(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["execute", "--self-test"]) == 0
    out = capfd.readouterr().out
    for word in ("seccomp", "Landlock", "address space", "fork loop", *[probe.name for probe in PROBES]):
        assert word in out
    assert "unlimited" not in out


HELD = Confinement(
    "checker", filtered=True, unprivileged=True, address_space=1 << 28, files=False, landlock=7, native=False
)


@pytest.mark.parametrize(
    ("found", "holds"),
    [
        (HELD, True),
        (replace(HELD, landlock=0), True),
        (replace(HELD, filtered=False), False),
        (replace(HELD, unprivileged=False), False),
        (replace(HELD, address_space=0), False),
        (replace(HELD, files=True), False),
    ],
)
def test_landlock_alone_may_be_missing(found: Confinement, holds: bool) -> None:
    assert found.holds == holds
