"""The way into a fork server, which is played: who goes together, in which order, and who is told what of a death."""

from __future__ import annotations

import asyncio
import itertools
import signal
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from common.errors import SandboxUnavailable
from executor import frames
from executor.claims import Claim
from executor.lane import Job, Lane
from executor.link import Died
from executor.process import Process

Program = tuple[bytes, list[bytes]]  # code and inputs
Answer = Callable[[list[Program]], bytes | Exception]


def reply(*texts: bytes, status: int = 0, ended: int = frames.ENDED_ITSELF, more: bytes = b"") -> bytes:
    return frames.REPORT.pack(status, ended, 0) + frames.pack([(frames.OK, text) for text in texts]) + more


def truth(programs: Sequence[Program]) -> list[bytes]:
    """What the programs of these tests give: themselves and the input."""
    return [code + data for code, inputs in programs for data in inputs]


def well(programs: list[Program]) -> bytes:
    return reply(*truth(programs))


class Scripted(Process):
    """A fork server that answers as it is told to, then well; each of its children in a moment of the event loop."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__("scripted", Path(), (), hash_seed=0)
        self.children: list[list[Program]] = []
        self.cpu_ms: list[int] = []
        self._answers = list(answers)
        self._free = asyncio.Lock()

    async def ask(self, body: bytes, timeout: float) -> bytes:
        async with self._free:
            self.cpu_ms.append(frames.REQUEST.unpack_from(body)[0])
            programs = understood([data for _, data in frames.unpack(body[frames.REQUEST.size :])])
            self.children.append(programs)
            await asyncio.sleep(0)
            answer = self._answers.pop(0)(programs) if self._answers else well(programs)
        if isinstance(answer, Exception):
            raise answer
        return answer


def understood(items: list[bytes]) -> list[Program]:
    """As executor/runner.py understands them."""
    if items[0]:
        return [(items[0], items[1:])]
    found: list[Program] = []
    for place, item in enumerate(items):
        if item and not items[place - 1]:
            found.append((item, []))
        elif item:
            found[-1][1].append(item)
    return found


def lane(process: Process, *, together: int = 4, last: bool = False, backwards: bool = False) -> Lane:
    limits = {"cpu_limit": 0.01, "wall_limit": 1.0}
    return Lane(process, **limits, output_limit=99, last=last, together=together, backwards=backwards)


def job(code: bytes, *inputs: bytes, confined: bool = True) -> Job:
    return Job(code, inputs or (b"1",), confined)


async def run(at: Lane, *jobs: Job) -> list[list[Claim]]:
    """All of them at one moment."""
    return await asyncio.gather(*[at.claims(each, each.inputs) for each in jobs])


def right(*jobs: Job) -> list[list[Claim]]:
    return [[Claim("ok", each.code + data) for data in each.inputs] for each in jobs]


A, B, C, D, E = [job(code) for code in (b"a", b"b", b"c", b"d", b"e")]


async def test_confined_jobs_that_come_together_share_a_child() -> None:
    server = Scripted()
    jobs = [D, A, job(b"x", b"1", b"2", confined=False), job(b"c", b"3", b"4"), B, E]
    assert await run(lane(server), *jobs) == right(*jobs)
    assert server.children == [
        [(b"a", [b"1"]), (b"b", [b"1"]), (b"c", [b"3", b"4"]), (b"d", [b"1"])],
        [(b"x", [b"1", b"2"])],
        [(b"e", [b"1"])],
    ]


async def test_two_that_meet_on_both_sides_meet_in_opposite_orders() -> None:
    up, down = Scripted(), Scripted()
    same = [job(b"a", b"2"), B, job(b"a", b"1")]
    assert await run(lane(up), *same) == right(*same)
    assert await run(lane(down, backwards=True), *reversed(same)) == right(*reversed(same))
    assert up.children == [[(b"a", [b"1", b"2"]), (b"b", [b"1"])]]  # of one program, its code is sent once
    assert down.children == [[(b"b", [b"1"]), (b"a", [b"2", b"1"])]]


async def test_alone_where_nobody_else_waits_or_nobody_may_share() -> None:
    server = Scripted()
    at = lane(server)
    assert [await run(at, A), await run(at, B)] == [right(A), right(B)]
    assert server.children == [[(b"a", [b"1"])], [(b"b", [b"1"])]]
    single = Scripted()
    await run(lane(single, together=1), A, B)
    assert single.children == server.children


async def test_the_one_in_front_is_next_whoever_may_share() -> None:
    server = Scripted()
    alone = job(b"x", confined=False)
    await run(lane(server, together=2), A, B, C, alone, D, E, job(b"f"))
    assert [[code for code, _ in child] for child in server.children] == [
        [b"a", b"b"], [b"c", b"d"], [b"x"], [b"e", b"f"],
    ]  # fmt: skip


async def test_a_child_takes_no_more_inputs_than_it_may() -> None:
    server = Scripted()
    many = job(b"m", *[b"%d" % n for n in range(300)])
    assert await run(lane(server), many, A) == right(many, A)
    assert [sum(len(inputs) for _, inputs in child) for child in server.children] == [256, 1, 44]


@pytest.mark.parametrize(
    ("status", "ended"), [(signal.SIGPROF, frames.ENDED_ITSELF), (signal.SIGKILL, frames.ENDED_BY_CLOCK)]
)
async def test_what_was_told_before_time_ran_out_counts(status: int, ended: int) -> None:
    server = Scripted(lambda programs: reply(*truth(programs)[:2], status=status, ended=ended))
    jobs = [A, job(b"b", b"1", b"2"), C, D]
    assert await run(lane(server), *jobs) == right(*jobs)
    assert server.children[1:] == [[(b"b", [b"2"])], [(b"c", [b"1"]), (b"d", [b"1"])]]
    assert server.cpu_ms == [20, 10, 20]


async def test_memory_is_no_fault_of_one_that_had_company_before_it() -> None:
    server = Scripted(lambda _: reply(b"a1") + frames.pack([(frames.MEMORY, b"")]))
    assert await run(lane(server), A, B, C) == right(A, B, C)
    assert server.children[1:] == [[(b"b", [b"1"])], [(b"c", [b"1"])]]


async def test_the_first_of_a_child_that_runs_out_of_time_goes_to_the_next_lane() -> None:
    server = Scripted(lambda _: reply(status=signal.SIGPROF))
    assert await run(lane(server), A, B) == [[], *right(B)]
    slow = Scripted(lambda _: reply(status=signal.SIGPROF))
    assert await run(lane(slow, together=1, last=True), A) == [[Claim("timeout_cpu")]]


async def test_company_holds_nobody_up_more_than_twice() -> None:
    def stops_at_a_loop(programs: list[Program]) -> bytes:
        done = list(itertools.takewhile(lambda program: program[0] < b"l", programs))
        return reply(*truth(done), status=0 if len(done) == len(programs) else signal.SIGPROF)

    server = Scripted(*[stops_at_a_loop] * 99)
    at = lane(server, backwards=True)
    loops = [job(b"l%02d" % n) for n in range(40)]
    first, *others = [asyncio.create_task(at.claims(each, each.inputs)) for each in (A, *loops)]
    assert [await first] == right(A)
    assert sum(b"a" in dict(child) for child in server.children) == 3 and len(server.children) < 10
    assert await asyncio.gather(*others) == [[]] * len(loops)


async def test_a_reply_that_is_none_is_an_error_of_all_who_wait_for_it() -> None:
    at = lane(Scripted(lambda _: b""))
    async with asyncio.timeout(60):
        failures = await asyncio.gather(*[at.claims(each, each.inputs) for each in (A, B)], return_exceptions=True)
    assert [type(failure) for failure in failures] == [struct.error] * 2
    assert at.load == 0 and await run(at, A) == right(A)


@pytest.mark.parametrize(
    "odd",
    [
        reply(b"lie", b"lie", status=signal.SIGSYS),
        reply(b"lie", b"lie", status=signal.SIGSEGV),
        reply(b"lie", b"lie"),
        reply(b"lie", b"lie", b"lie", more=b"x"),
        reply(b"lie", b"lie", b"lie", b"lie"),
        reply(b"lie", b"lie", status=signal.SIGKILL, ended=frames.ENDED_BY_FLOOD),
        reply(status=frames.NO_CHILD),
    ],
    ids=["violation", "crash", "exit", "rest", "surplus", "flood", "no child"],
)
async def test_nothing_counts_of_a_shared_child_that_ends_as_none_should(odd: bytes) -> None:
    server = Scripted(lambda _: odd)
    assert await run(lane(server), A, B, C) == right(A, B, C)
    assert [len(child) for child in server.children] == [3, 1, 1, 1]


async def test_of_a_child_of_its_own_a_crash_is_told_as_ever() -> None:
    server = Scripted(lambda _: reply(b"x1", status=signal.SIGSEGV), lambda _: reply(status=signal.SIGSEGV))
    alone = job(b"x", b"1", b"2", b"3", confined=False)
    (claims,) = await run(lane(server), alone)
    assert [claim.status for claim in claims] == ["ok", "crash_11", "infra"]
    assert server.children == [[(b"x", [b"1", b"2", b"3"])], [(b"x", [b"2", b"3"])]]


async def test_company_of_a_fork_server_that_died_is_never_poison() -> None:
    def dies_of_b(programs: list[Program]) -> bytes | Exception:
        return Died("killed") if b"b" in dict(programs) else well(programs)

    server = Scripted(*[dies_of_b] * 9)
    assert await run(lane(server), A, B, C) == [*right(A), [Claim("poison")], *right(C)]
    assert [[code for code, _ in child] for child in server.children] == [
        [b"a", b"b", b"c"], [b"a"], [b"b"], [b"b"], [b"c"],
    ]  # fmt: skip


async def test_one_death_that_was_nobodys_fault_is_no_ones_verdict() -> None:
    server = Scripted(lambda _: Died("killed"), lambda _: Died("killed"))
    assert await run(lane(server), A, B) == right(A, B)


async def test_a_fork_server_that_cannot_be_had_fails_all_who_wait() -> None:
    server = Scripted(*[lambda _: SandboxUnavailable("no seccomp")] * 3)
    at = lane(server, together=2)
    failures = await asyncio.gather(*[at.claims(each, each.inputs) for each in (A, B, C, D, E)], return_exceptions=True)
    assert [type(failure) for failure in failures] == [SandboxUnavailable] * 5
    assert at.load == 0 and await run(at, A) == right(A)


async def test_a_caller_that_is_gone_holds_nobody_up() -> None:
    server = Scripted()
    at = lane(server, together=2)
    gone = [asyncio.create_task(at.claims(each, each.inputs)) for each in (A, B, C, D)]
    other = asyncio.create_task(at.claims(E, E.inputs))
    await asyncio.sleep(0)
    assert at.load == 5
    for task in gone:
        task.cancel()
    assert await other == right(E)[0]


codes = st.integers(0, len(frames.STATUSES))
bodies = st.lists(st.tuples(codes, st.binary(max_size=3)), max_size=6).map(frames.pack) | st.binary(max_size=30)
statuses = st.sampled_from([0, 256, signal.SIGPROF, signal.SIGSYS, signal.SIGSEGV, frames.NO_CHILD])
ends = st.sampled_from([frames.ENDED_ITSELF, frames.ENDED_BY_CLOCK, frames.ENDED_BY_FLOOD])
replies = st.builds(lambda status, ended, body: frames.REPORT.pack(status, ended, 0) + body, statuses, ends, bodies)
groups = st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=5)


@settings(max_examples=300, deadline=None)
@given(groups, st.lists(replies | st.none(), max_size=5), st.booleans())
@example([(1, True), (1, True)], [reply(b"lie")], False)
def test_whatever_children_say_everybody_is_told_of_his_own(
    shape: list[tuple[int, bool]], said: list[bytes | None], last: bool
) -> None:
    """Every input gets one claim (or is left to the next lane, behind those told); what was not said in its place by
    some child, or is no verdict of a death, is the truth."""
    told: dict[bytes, set[bytes]] = {}

    def saying(answer: bytes | None) -> Answer:
        def note(programs: list[Program]) -> bytes | Exception:
            if answer is None:
                return Died("killed")
            items, _ = frames.unpack_whole(answer[frames.REPORT.size :])
            for place, (_, data) in zip(truth(programs), items, strict=False):
                told.setdefault(place, set()).add(data)
            return answer

        return note

    async def play() -> None:
        jobs = [
            job(b"%d." % n, *[b"%d" % i for i in range(inputs)], confined=confined)
            for n, (inputs, confined) in enumerate(shape)
        ]
        async with asyncio.timeout(60):
            found = await run(lane(Scripted(*map(saying, said)), last=last), *jobs)
        for each, claims in zip(jobs, found, strict=True):
            assert len(claims) == len(each.inputs) or (not last and len(claims) < len(each.inputs))
            for data, claim in zip(each.inputs, claims, strict=False):
                place = each.code + data
                if claim.status in frames.STATUSES and claim.data != place:
                    assert claim.data in told[place] or claim == Claim("memory")

    asyncio.run(play())
