"""Programs that share a child, in a real shard: each says what it says alone, whatever stands beside it."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from common.jobs import Validate, Validation
from executor.outcome import Outcome
from executor.shard import Shard
from tests.executor.conftest import CONFIG

pytestmark = pytest.mark.asyncio(loop_scope="module")

FORGETFUL = dataclasses.replace(CONFIG, cache=0, cpu_limit=0.1)

# Confined: ordinary ones, and such as try to leave something behind or to use something up.
SHARING = {
    "sum": ("def f(x): return sum(x)", ("[1, 2]", "[]", "[3]")),
    "strings": ("def f(x): return x.upper().split()", ("'a b'",)),
    "counter": ("from collections import Counter\ndef f(x): return Counter(x).most_common()", ("'abca'",)),
    "codec": ("def f(x): return x.encode('shift_jis')", ("'ab'", "'\\u3042'")),
    "no codec": ("def f(x): return x.encode('ab' + 'sent')", ("'ab'",)),
    "hints": ("from typing import List\ndef f(x: List['int']) -> List[int]: return x", ("[1]",)),
    "own state": ("T = []\ndef f(x, y=[]):\n    T.append(x)\n    y.append(x)\n    return T, y", ("1", "2", "3")),
    "cache": (
        "from functools import cache\n@cache\ndef g(x): return [x]\ndef f(x):\n    g(1).append(x)\n    return g(True)",
        ("2",),
    ),
    "shadows": ("def len(x): return 42\nmax = min\ndef f(x): return len(x), max(x)", ("[1, 2]",)),
    "depth": ("def f(x): return 1 + f(x)", ("1",)),
    "generator left open": (
        "def g():\n    while True: yield 1\ndef f(x):\n    y = [g()]\n    y.append(y)\n    return next(y[0])",
        ("0",),
    ),
    "cycle": ("def f(x):\n    y = [0] * 10**5\n    y.append(y)\n    return len(y)", ("1", "2")),
    "set of strings": ("def f(x): return list({*x})", ("'abcdef'",)),
    "identity": ("def f(x): return 'ab' is 'a' + 'b', [] is [], () is ()", ("1",)),
    "error": ("def f(x): return x[9]", ("[1]",)),
    "own error": ("def f(x): raise KeyError(x)", ("1",)),
    "bad input": ("def f(x): return x", ("1 / 0",)),
    "no value": ("def f(x): return f", ("1",)),
    "too big": ("def f(x): return 'a' * 5000", ("1",)),
    "loop": ("def f(x):\n    while x: pass\n    return x", ("0", "1")),
    "memory": ("def f(x): return len('a' * 10**9)", ("1",)),
    "memory in vain": (
        "def f(x):\n    y = []\n    y.append(y)\n    while len(y) < x: y.append(bytes(10**7))\n    return len(y)",
        ("4", "8"),
    ),
    "memory for an input": ("def f(x): return len(x)", ("bytes(6 * 10**7)",)),
    "deep": ("def f(x):\n    y = []\n    for _ in range(10**4): y = [y]\n    return 1", ("1",)),
}  # fmt: skip
# Not confined: what these do to their process must be nobody else's business.
ALONE = {
    "depth caught": ("def f(x):\n    try: return 1 + f(x)\n    except RecursionError: return 0", ("1",)),
    "module": ("import math\ndef f(x):\n    math.sqrt = math.n = lambda v: 42\n    return math.sqrt(x)", ("4",)),
    "read module": ("import math\ndef f(x): return math.sqrt(x), hasattr(math, 'n')", ("4",)),
    "builtins": ("import enum\ndef f(x):\n    enum.__dict__['bltns'].len = 1\n    return len", ("1",)),
    "exit": ("def f(x): raise SystemExit", ("1",)),
    "leave": ("import enum\ndef f(x): enum.__dict__['sys'].modules['posix']._exit(3)", ("1",)),
    "signal": ("import enum\ndef f(x): enum.__dict__['sys'].modules['posix'].abort()", ("1",)),
    "garbage": ("import enum\ndef f(x): enum.__dict__['sys'].modules['posix'].write(3, b'x' * 99)", ("1",)),
    "attack": ("import enum\ndef f(x): enum.__dict__['sys'].modules['posix'].fork()", ("1",)),
    "class": ("class A:\n    def __del__(self): pass\ndef f(x): return bool(A())", ("1",)),
    "everything caught": ("def f(x):\n    try: return len('a' * 10**9)\n    except: return 0", ("1",)),
}  # fmt: skip
PROGRAMS = SHARING | ALONE
LOAD = {"timeout_wall": "timeout_cpu"}  # where the machine is busy


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def sharing(native: bool) -> AsyncIterator[Shard]:
    shard = Shard(FORGETFUL, native=native)
    await shard.start()
    yield shard
    await shard.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def alone(native: bool) -> AsyncIterator[dict[str, tuple[str, ...]]]:
    """What each program says where none shares a child."""
    shard = Shard(dataclasses.replace(FORGETFUL, together=1), native=native)
    await shard.start()
    replies = [await shard.validate(Validate(*program)) for program in PROGRAMS.values()]
    yield dict(zip(PROGRAMS, map(said, replies), strict=True))
    await shard.close()


def said(reply: Validation) -> tuple[str, ...]:
    return (LOAD.get(reply.status, reply.status), reply.detail, *reply.outputs)


async def test_the_programs_are_what_they_are_here_for(sharing: Shard, alone: dict[str, tuple[str, ...]]) -> None:
    for name, (text, inputs) in PROGRAMS.items():
        reads = [await sharing.reader.program(text), *await sharing.reader.expressions(inputs)]
        assert all(read.ok for read in reads), (name, reads)
        assert all(read.confined for read in reads) == (name in SHARING), name
    statuses = {status for status, *_ in alone.values()}
    assert statuses >= {
        "ok", "error", "input", "exit", "exited", "unserialisable", "too_big", "timeout_cpu", "memory", "violation",
        "protocol", "nondeterministic",
    }  # fmt: skip


@pytest.mark.parametrize("seed", range(12))
async def test_company_changes_no_outcome(sharing: Shard, alone: dict[str, tuple[str, ...]], seed: int) -> None:
    rng = random.Random(seed)
    # Copies that differ in a comment only are one program to the executor, so each is given a name of its own.
    names = rng.choices(list(PROGRAMS), k=48)
    jobs = [Validate(f"{PROGRAMS[name][0]}\n_n = {place}", PROGRAMS[name][1]) for place, name in enumerate(names)]
    replies = await asyncio.gather(*[sharing.validate(job) for job in jobs])
    assert [(name, said(reply)) for name, reply in zip(names, replies, strict=True)] == [
        (name, alone[name]) for name in names
    ]


async def test_memory_that_company_holds_fails_no_input(sharing: Shard) -> None:
    hog = "def f(x):\n    y = [bytes(5 * 10**7)]\n    y.append(y)\n    return 1"
    short = "def f(x): return len(x)"
    long = short + "\na = b = c = d = e = 1" * 9  # one of the two is behind the first, on each side
    programs = [await sharing.reader.program(text) for text in (hog, short, long)]
    hogs, other = await sharing.reader.expressions(["1", "bytes(6 * 10**7)"])
    assert programs[1].payload < programs[0].payload < programs[2].payload
    for side in sharing.sides:
        jobs = zip(programs, (hogs, other, other), strict=True)
        found = await asyncio.gather(*[side.run(program, [given]) for program, given in jobs])
        assert [outcome.text for (outcome,) in found] == ["1", "60000000", "60000000"]


@pytest.mark.parametrize("seed", range(3))
async def test_hostile_programs_beside_clean_ones(sharing: Shard, seed: int) -> None:
    folder = Path(__file__).with_name("hostile")
    hostile = [Validate(file.read_text(), ("1", "2")) for file in sorted(folder.glob("*.txt"))]
    clean = [Validate(f"def f(x): return [x, {n}]", ("1", "2")) for n in range(2 * len(hostile))]
    jobs = hostile + clean
    random.Random(seed).shuffle(jobs)
    replies = await asyncio.gather(*[sharing.validate(job) for job in jobs])
    for job, reply in zip(jobs, replies, strict=True):
        if job in clean:
            assert reply.outputs == tuple([f"[{x}, {clean.index(job)}]" for x in (1, 2)])


# --- if the proof had a hole ------------------------------------------------------------------------------------------

HOLE = "().__class__.__base__.__subclasses__()"
POSIX = f"[c for c in {HOLE} if c.__name__ == '_wrap_close'][0].__init__.__globals__"


async def outcomes(shard: Shard, programs: Sequence[str]) -> list[Outcome]:
    """Of programs that the checker is taken to have let pass, on one side, at one moment."""
    reads = [dataclasses.replace(await shard.reader.program(text), confined=True) for text in programs]
    given = [dataclasses.replace(read, confined=True) for read in await shard.reader.expressions(["4"])]
    found = await asyncio.gather(*[shard.sides[0].run(read, given) for read in reads])
    return [outcome for (outcome,) in found]


async def test_jobs_of_one_moment_do_share_a_child(open_shard: Shard) -> None:
    """What a hole would let them do, and so the one way to see it."""
    count = "def f(x):\n    try: math.n += 1\n    except AttributeError: math.n = 1\n    return math.n"
    found = await outcomes(open_shard, [f"import math\n{count}\n_n = {n}" for n in range(9)])
    assert sorted(outcome.text for outcome in found) == [str(n) for n in range(1, 10)]


@pytest.mark.parametrize(
    ("call", "arguments", "status"),
    [
        ("_exit", "0", "exited"),
        ("abort", "", "crash_6|violation"),
        ("write", "3, b'x' * 9", "protocol"),
        ("fork", "", "violation"),
    ],
)
async def test_a_child_that_ends_oddly_is_no_verdict_but_the_culprits(
    open_shard: Shard, call: str, arguments: str, status: str
) -> None:
    clean = [f"def f(x): return x + {n}" for n in range(8)]
    culprit, *found = await outcomes(open_shard, [f"def f(x): return {POSIX}['{call}']({arguments})", *clean])
    assert culprit.status in status.split("|"), culprit
    assert [outcome.text for outcome in found] == [str(4 + n) for n in range(8)]


@pytest.mark.parametrize("name", ["getattr", "setattr", "eval", "open", "print", "type", "globals", "memoryview"])
async def test_built_ins_that_are_not_listed_are_not_there(open_shard: Shard, name: str) -> None:
    found = await outcomes(open_shard, [f"def f(x): return {name} and 1", "class A: pass\ndef f(x): return 1"])
    assert found == [Outcome("error", "NameError")] * 2
