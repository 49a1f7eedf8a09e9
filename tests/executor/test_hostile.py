"""Programs that attack: the expected status, nothing made, nothing left behind, and the next job is served as ever.

Each is run twice: under the policy, where it may be refused, and without, where only the sandbox stands in its way.
tests/executor/hostile holds the project's own programs; its manifest names for each entry a file, inputs, and the
statuses that are right without the policy. Several entries may share a file. A file that a program could make has
"pwned" in its name.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from common import wire
from common.jobs import Validate, Verdict, Verify
from common.types import Task, TaskType
from executor.policy import MAX_SOURCE
from executor.shard import Shard
from tests.executor.conftest import CONFIG, require_forkloop

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A program that sleeps costs the test as much time as the wall limit.
LIMITS = dataclasses.replace(CONFIG, cpu_limit=0.25, wall_limit=1.0, output_limit=65536, cache=0)
PROBE = Validate("import math\ndef f(x): return [math.sqrt(x), sorted({'b', 'a'}), repr(1)]", ("4",))
PROBED = ("[2.0, ['a', 'b'], '1']",)

HOSTILE = Path(__file__).with_name("hostile")
OWN = json.loads((HOSTILE / "manifest.json").read_text())


def alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def fork_servers() -> list[int]:
    """Those of this process."""
    return [pid for pid in children(os.getpid()) if b"zygote.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def made() -> list[str]:
    return [name for folder in ("/tmp", "/dev/shm", "/") for name in os.listdir(folder) if "pwned" in name.lower()]


@dataclass(frozen=True)
class Target:
    """A shard that is attacked, and the fork servers with which it started."""

    shard: Shard
    policy: bool
    servers: list[int]

    async def endure(self, program: str, inputs: Iterable[str], expected: Iterable[str]) -> str:
        """The status that the program got, which must be one of those expected."""
        allowed = {*expected} | ({"policy"} if self.policy else set())
        if "timeout_cpu" in allowed:
            allowed.add("timeout_wall")  # where the machine is busy
        reply = await self.shard.validate(Validate(program, tuple(inputs)))
        assert reply.status in allowed, reply
        clean = await self.shard.validate(PROBE)
        assert clean.outputs == PROBED, clean
        assert all(alive(pid) for pid in self.servers)
        assert not any(children(pid) for pid in self.servers)
        assert not made()
        return reply.status


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def target(request: pytest.FixtureRequest) -> AsyncIterator[Target]:
    policy, native = request.param
    others = set(fork_servers())
    shard = Shard(LIMITS, policy=policy, native=native)
    await shard.start()
    servers = sorted(set(fork_servers()) - others)
    assert servers
    yield Target(shard, policy, servers)
    await shard.close()
    assert not any(alive(pid) for pid in servers)


WITH_POLICY, OPEN, OPEN_IN_PYTHON = (True, True), (False, True), (False, False)  # policy, native
once = pytest.mark.parametrize("target", [OPEN], ids=["open"], indirect=True)
twice = pytest.mark.parametrize("target", [WITH_POLICY, OPEN], ids=["policy", "open"], indirect=True)
thrice = pytest.mark.parametrize(
    "target",
    [WITH_POLICY, OPEN, OPEN_IN_PYTHON],
    ids=["policy", "open", "open, loop in Python"],
    indirect=True,
)


def aimed(program: str) -> str:
    """The attacks that call the kernel look for its entry in a module of the sandbox: tell them its real name."""
    return program.replace("m['sandbox']", "m['executor.sandbox']").replace("sb._sc", "sb._syscall")


@twice
async def test_the_shared_set(shared: Path, target: Target) -> None:
    folder = shared / "hostile"
    if not folder.is_dir():
        pytest.skip("the shared folder holds no hostile programs")
    for case in json.loads((folder / "manifest.json").read_text()).values():
        program = aimed((folder / case["file"]).read_text())
        more = ["too_big"] if len(program) > MAX_SOURCE else []
        if "10**6" in program:
            more.append("timeout_cpu")  # a million objects: too slow for the limit where the machine is busy
        await target.endure(program, case["inputs"], [*case["expect"], *more])


@thrice
@pytest.mark.parametrize("name", OWN)
async def test_own_programs(target: Target, name: str) -> None:
    program = (HOSTILE / OWN[name]["file"]).read_text()
    status = await target.endure(program, OWN[name]["inputs"], OWN[name]["expect"])
    if target.policy and "__self__" in program:  # the way to the interpreter's modules
        assert status == "policy"


@once
async def test_own_programs_all_at_once(target: Target) -> None:
    """Jobs that travel together to the same fork servers get each its own answer."""
    quick = [case for case in OWN.values() if not any("timeout" in status for status in case["expect"])]
    jobs = [Validate((HOSTILE / case["file"]).read_text(), tuple(case["inputs"])) for case in quick]
    probes = [Validate(f"def f(x): return x + {number}", ("1",)) for number in range(len(jobs))]
    replies = await asyncio.gather(
        *[target.shard.validate(job) for pair in zip(jobs, probes, strict=True) for job in pair]
    )
    assert [reply.outputs for reply in replies[1::2]] == [(str(1 + number),) for number in range(len(jobs))]
    for job, case, reply in zip(jobs, quick, replies[::2], strict=True):
        assert reply.status in case["expect"], (job, reply)


async def test_memory_holds_nothing_of_earlier_jobs() -> None:
    """The loop in C sees to that; the one in Python cannot."""
    require_forkloop()
    one_lane = dataclasses.replace(LIMITS, first_slice=LIMITS.cpu_limit)  # the search takes longer than a slice
    shard = Shard(one_lane, policy=False)
    await shard.start()
    try:
        search, secret = (HOSTILE / "search.txt").read_text(), "these words are nobody else's business"
        for size in (1, 100, 10):
            await shard.validate(Validate("def f(x): return [x]", (repr(secret * size),)))
        sought = repr(bytes(byte + 1 for byte in secret.encode()))
        shown = f'{search}SECRET = "{secret}"\n'
        assert (await shard.validate(Validate(shown, (sought,)))).outputs == ("True",)
        assert (await shard.validate(Validate(search, (sought,)))).outputs == ("False",)
    finally:
        await shard.close()


def lines(count: int, line: str) -> str:
    return "\n".join(line.replace("N", str(number)) for number in range(count))


# Against what reads programs: (text, status without policy).
TEXTS = {
    "brackets": ("def f(x): return " + "[" * 5000 + "]" * 5000, "syntax"),
    "unary": ("def f(x): return " + "-" * 15000 + "x", "syntax"),
    "negations": ("def f(x): return " + "not " * 4000 + "x", "syntax"),
    "attributes": ("def f(x): return x" + ".a" * 8000, "syntax"),
    "sum": ("def f(x): return x" + "+1" * 8000, "syntax"),
    "comparison": ("def f(x): return x" + "<1" * 8000, "ok"),
    "lambdas": ("f = " + "lambda x: " * 1500 + "1", "syntax"),
    "calls": ("def f(x): return " + "f(" * 99 + "x" + ")" * 99, "error"),
    "conditions": ("def f(x): return " + "1 if x else " * 1300 + "2", "syntax"),
    "elifs": ("def f(x):\n if x: return 1\n" + lines(700, " elif x == N: pass"), "ok"),
    "decorators": ("\n".join(["@abs"] * 3000) + "\ndef f(x): return x", "error"),
    "indentation": ("\n".join(" " * n + "if 1:" for n in range(101)), "syntax"),
    "tabs": ("def f(x):\n\tif x:\n        return x", "syntax"),
    "form feeds": ("\f" * 9000 + "def f(x): return x", "ok"),
    "continued": ("def f(x): return x" + " \\\n" * 5000 + "+ 1", "ok"),
    "name": (f"def f({'x' * 16000}): return 1", "ok"),
    "names": ("def f(x): return 1\n" + lines(900, "aN = bN = N"), "ok"),
    "arguments": (f"def f({', '.join(f'a{n}=1' for n in range(1500))}): return 1", "ok"),
    "f-strings": ("def f(x): return f'{x:{x:{x}}}'", "syntax|error"),
    "quotes": ("def f(x): return " + "f'" * 5001, "syntax"),
    "digits": ("def f(x): return " + "9" * 4301, "syntax"),
    "hexadecimal": ("def f(x): return 0x" + "f" * 15000, "syntax"),
    "exponent": ("def f(x): return 1e999999999999999999999, 1e-9999999999999999999", "ok"),
    "folded text": ("def f(x): return 'a' * 10**12", "memory"),
    "folded power": ("def f(x): return 10**(10**(10**10))", "timeout_cpu|memory"),
    "folded shift": ("def f(x): return len((1 << (1 << 40)) * ())", "memory"),
    "folded tuples": ("def f(x): return len(" + "(" * 50 + "1" + ",)*9" * 50 + ")", "ok"),
    "named characters": ("def f(x): return '" + r"\N{LATIN SMALL LETTER A}" * 600 + "'", "ok"),
    "unnamed character": ("def f(x): return '" + r"\N{" + "A" * 9000 + "}'", "syntax"),
    "surrogate": ("def f(x): return '\ud800'", "syntax"),
    "surrogate, written": (r"def f(x): return '\ud800'", "ok"),
    "NUL": ("def f(x): return 1\0", "syntax"),
    "mark": ("\ufeffdef f(x): return 1", "syntax"),
    "cookie": ("# -*- coding: utf-7 -*-\ndef f(x): return 1", "ok"),
    "unknown cookie": ("# -*- coding: rot13 -*-\nqrs s(k): erghea 1\ndef f(x): return 1", "syntax"),
    "wide letters": ("def f(x): return \uff45\uff56\uff41\uff4c('1')", "ok"),
    "directions": ("def f(x):\n    '\u202e' # \u2066 return 0\n    return 1", "ok"),
    "globals": ("def f(x): return 1\n" + lines(900, "global gN"), "ok"),
    "nonlocal": ("def f(x):\n    nonlocal x", "syntax"),
    "star": ("def f(x):\n    from math import *", "syntax"),
    "await": ("def f(x): await x", "syntax"),
    "future": ("from __future__ import barry_as_FLUFL\ndef f(x): return 1 <> 2", "syntax"),
    "patterns": ("def f(x):\n match x:\n  case " + "[" * 150 + "]" * 150 + ": return 1\n return 0", "ok"),
    "alternatives": ("def f(x):\n match x:\n  case " + "|".join(map(str, range(3000))) + ": return 1", "ok"),
    "too long": ("def f(x): return 1 #" + "x" * 20000, "too_big"),
    "empty": ("", "error"),
    "no function": ("f = 3", "error"),
}


@twice
@pytest.mark.parametrize("name", TEXTS)
async def test_texts_against_the_checker(target: Target, name: str) -> None:
    text, expected = TEXTS[name]
    await target.endure(text, ["1"], [*expected.split("|"), *(["syntax", "too_big"] if target.policy else [])])


INPUTS = {
    "text bomb": ("'a' * 10**12", "input"),
    "list bomb": ("[0] * 10**11", "input"),
    "loop": ("[0 for _ in iter(int, 1)]", "timeout_cpu"),
    "deep": ("[" * 90 + "]" * 90, "unserialisable"),
    "deeper": ("[" * 5000, "input"),
    "endless generator": ("(0 for _ in iter(int, 1))", "unserialisable"),
    "two lists": ("1), f(2", "input"),
    "statement": ("1); import os; (2", "input"),
    "comment": ("1 #", "ok"),
    "comment before more": ("1 #)\n) or f(2", "input"),
    "lines": ("1\n,\n2\n)\nf(", "input"),
    "star": ("*range(10**9)", "input"),
    "names": ("**{'x': 1, 'y' * 10**6: 2}", "error"),
    "exit": ("exit()", "input"),
    "raise": ("(_ for _ in ()).throw(SystemExit)", "input"),
    "surrogate": ("'\ud800'", "input"),
    "NUL": ("'\0'", "input"),
    "mark": ("\ufeff1", "input"),
    "digits": ("9" * 4301, "input"),
    "hexadecimal": ("0x" + "f" * 9000, "too_big"),
    "too long": ("'" + "x" * 20000 + "'", "too_big"),
    "yield": ("(yield)", "input"),
    "await": ("await f(1)", "input"),
}


@twice
@pytest.mark.parametrize("name", INPUTS)
async def test_inputs_against_the_runner(target: Target, name: str) -> None:
    text, expected = INPUTS[name]
    await target.endure("def f(x): return x", [text], expected.split("|"))


TABLE = "import re\nTABLE = {1: 2}\ndef f(x): return TABLE[x]"
FRAME = "(lambda g: (g.append(g[0].gi_frame.f_back.f_globals['TABLE'].update({1: 99}) for _ in '1'), [*g[-1]], 1)[2])"
CLAIM = r"write(3, b'\0\2\0\0\0' + b'99')"
CHEATS = [
    "(f := lambda x: 99)",
    "[(f := lambda x: 99) for _ in '1'][0]",
    "TABLE.update({1: 99}) or 1",
    "(lambda t: t.update({1: 99}) or 1)(TABLE)",
    "TABLE.__setitem__(1, 99) or 1",
    "dict.update(TABLE, {1: 99}) or 1",
    "f.__globals__['TABLE'].update({1: 99}) or 1",
    "setattr(f, '__code__', (lambda x: 99).__code__) or 1",
    "getattr(f, '__globals__').update(TABLE={1: 99}) or 1",
    f"[re.enum.sys.modules['os'].{CLAIM}, re.enum.sys.modules['os']._exit(0)]",
    f"[(m['os'].{CLAIM}, m['os'].abort()) for m in [re.enum.sys.modules]]",
    f"re.enum.sys.modules['os'].{CLAIM} and 1 << 10**15",
    f"(lambda o: (o.{CLAIM}, o._exit(0)))(len.__self__.__import__('os'))",
    "[k for k in ().__class__.__base__.__subclasses__() if k.__name__ == 'Process']",
    "(lambda g: (g.append(g[0].gi_frame for _ in '1'), 1)[1])([0])",
    f"{FRAME}([])",
    "globals().update(f=lambda x: 99) or 1",
    "eval('f', {'f': 1}) or 1",
    "type('Key', (), {'__hash__': lambda s: 1, '__eq__': lambda s, o: TABLE.update({1: 99}) or True})()",
    "__build_class__(lambda: 1, 'Key')",
    "__arguments__.__globals__",
    "f'{f.__globals__}' and 1",
]  # fmt: skip


@pytest.mark.parametrize("answer", CHEATS)
async def test_no_answer_claims_the_output_that_it_was_shown(shard: Shard, answer: str) -> None:
    """No honest input gives 99, so an answer that is right has changed the program or spoken in its place."""
    task = Task(TaskType.ABDUCTION, TABLE, ("1",), ("99",), key="k")
    reply = await shard.verify(Verify(task, (answer, "1")))
    assert reply.verdicts[0].status == "policy", reply
    assert reply.verdicts == (Verdict(False, "policy", reply.verdicts[0].detail), Verdict(False, "ok"))


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        ("", "syntax"),
        ("\0", "syntax"),
        ("'\0'", "syntax"),
        ("\ud800", "syntax"),
        ("'\udcff'", "syntax"),
        (r"'\ud800'", "ok"),
        ("\ufeff'\\ud800'", "ok|syntax"),
        ("'" + "x" * (1 << 20) + "'", "too_big"),
        ("[" * 3000, "syntax"),
        ("-" * 3000 + "1", "syntax|checker_crash"),
        ("9" * 4000, "ok"),
        ("0x" + "f" * 4000, "syntax"),
        ("{'a': [{}, {1: {2: {3: ()}}}]}", "ok"),
        ("\x0c 1", "ok|syntax"),
        ("1 # or 2", "ok"),
        ("1; 2", "syntax"),
        ("f(1)", "syntax"),
    ],
)
async def test_answers_on_the_wire(shard: Shard, answer: str, status: str) -> None:
    task = Task(TaskType.DEDUCTION, "def f(x): return 'never'", ("1",), ("'never'",), key="k")
    _, job = wire.decode(wire.encode(1, Verify(task, (answer, "'never'"))))
    reply = await shard.verify(job)
    assert reply.verdicts[0].status in status.split("|"), reply
    assert [verdict.correct for verdict in reply.verdicts] == [False, True]
    assert wire.decode(wire.encode(2, reply))[1] == reply
