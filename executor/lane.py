"""The way into one fork server: jobs wait here in order, and confined ones that wait together share a child.

When the fork server can take a child, the job in front gets it, and if that is confined (executor/confined.py), so do
the next confined ones, up to a number. Nobody waits for company. Within a child jobs stand in the order of their
contents, on one side of a shard upwards, on the other downwards: of two that meet on both sides, each is once first.

A child's death is blamed on an input only if that was its first. Of a shared child that ran out of time or memory,
what it had told counts, the job it was at goes on alone, the others in another child, or alone if that befell them
before. Any other end, and any that a fork server shares, says that something is not as it should be: nothing of it
counts and each job runs again alone. A job that is present at two deaths of fork servers without company is poison.
Jobs that run again wait where they stood, so whatever comes later, company holds up none of them more than twice.
"""

from __future__ import annotations

import asyncio
import itertools
from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from common.types import Status
from executor import claims, frames
from executor.claims import Claim
from executor.link import Died
from executor.process import Process

_UNDER_WAY = 2  # children asked for: the fork server need not wait for us
_DEATHS = 2  # of fork servers, with the same job, that make the job poison
_MARGIN = 10.0  # seconds beyond the wall limit after which a silent fork server counts as dead
_WIDTH = 256  # inputs of one child
_SLICES = 2  # times the CPU limit for a shared child: most need far less than one
_MORE = 1 << 16  # bytes a child may write beyond its outputs
_NOT_RUN = Claim(Status.INFRA, b"not run: another input of the job had failed")
_RETRIED = frozenset((Status.TIMEOUT_CPU, Status.TIMEOUT_WALL, Status.MEMORY))


@dataclass(slots=True, eq=False)
class Job:
    """A program with all its inputs, marshalled. `confined`: they may share a child."""

    code: bytes
    inputs: tuple[bytes, ...]
    confined: bool
    deaths: int = 0  # of fork servers


@dataclass(slots=True, eq=False)
class _Turn:
    """A job's stay in the lane."""

    number: int  # counted as they come
    job: Job
    inputs: Sequence[bytes]  # in the order in which they are run
    done: asyncio.Future[list[Claim]]
    alone: bool
    held_up: bool = False  # by company that used up its child
    width: int = _WIDTH
    found: list[Claim] = field(default_factory=list)

    @property
    def rest(self) -> Sequence[bytes]:
        return self.inputs[len(self.found) :]

    def end(self, claims: Iterable[Claim] = ()) -> None:
        if not self.done.done():
            self.done.set_result([*self.found, *claims])


class Lane:
    def __init__(
        self,
        process: Process,
        *,
        cpu_limit: float,
        wall_limit: float,
        output_limit: int,
        last: bool,
        together: int = 1,
        backwards: bool = False,
    ) -> None:
        """`cpu_limit`, `wall_limit`: seconds of a child. `last`: whether a verdict of time or memory is final here.
        `together`: jobs of one child, at most. `backwards`: the order in it is downwards."""
        self.process = process
        self._cpu_limit, self._wall_limit, self._output_limit = cpu_limit, wall_limit, output_limit
        self._last, self._together, self._backwards = last, together, backwards
        self._waiting: deque[_Turn] = deque()
        self._children: set[asyncio.Task[None]] = set()
        self._numbers = itertools.count()
        self._jobs = 0  # that wait or run
        self._sending = False

    @property
    def load(self) -> int:
        """Jobs that wait or run."""
        return self._jobs

    async def claims(self, job: Job, inputs: Sequence[bytes]) -> list[Claim]:
        """A claim for each of `inputs`, of which there are some; or, unless this is the last lane, of the first ones,
        if the others have to be run with more time or memory.

        SandboxUnavailable if a fork server cannot be had again; PartFailed when it is closed.
        """
        done: asyncio.Future[list[Claim]] = asyncio.get_running_loop().create_future()
        turn = _Turn(next(self._numbers), job, inputs, done, alone=not job.confined)
        self._waiting.append(turn)
        self._send_soon()
        self._jobs += 1
        try:
            return await turn.done
        finally:
            self._jobs -= 1

    def _send_soon(self) -> None:
        """When what comes in at this very moment has come in."""
        if not self._sending:
            self._sending = True
            asyncio.get_running_loop().call_soon(self._send)

    def _send(self) -> None:
        self._sending = False
        while self._waiting and len(self._children) < _UNDER_WAY:
            turns = self._company()
            task = asyncio.create_task(self._child(turns))
            self._children.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._children.discard(task)
        self._send_soon()

    def _company(self) -> list[_Turn]:
        """The job in front, with those that may share its child; in the order in which they run."""
        turns = [self._waiting.popleft()]
        if turns[0].alone or self._together == 1:
            return turns
        room = _WIDTH - len(turns[0].rest)
        passed: list[_Turn] = []
        while self._waiting and len(turns) < self._together:
            turn = self._waiting.popleft()
            fits = not turn.alone and len(turn.rest) <= room
            (turns if fits else passed).append(turn)
            room -= len(turn.rest) if fits else 0
        self._waiting.extendleft(reversed(passed))
        return sorted(turns, key=lambda turn: (turn.job.code, turn.job.inputs), reverse=self._backwards)

    async def _child(self, turns: Sequence[_Turn]) -> None:
        batches = [turn.rest[: turn.width] for turn in turns]
        try:
            reply = await self.process.ask(self._request(turns, batches), self._wall_limit + _MARGIN)
            again = self._told(turns, batches, reply)
        except Died:
            again = self._present_at_a_death(turns)
        except Exception as error:  # noqa: BLE001 - whoever waits must see it
            for turn in turns:
                if not turn.done.done():
                    turn.done.set_exception(error)
            return
        for turn in again:
            insort(self._waiting, turn, key=attrgetter("number"))

    def _request(self, turns: Sequence[_Turn], batches: Sequence[Sequence[bytes]]) -> bytes:
        bound = (self._output_limit + frames.ITEM.size) * sum(map(len, batches)) + _MORE
        cpu = self._cpu_limit * (_SLICES if len(turns) > 1 else 1)
        head = frames.REQUEST.pack(
            round(cpu * 1000), round(self._wall_limit * 1000), bound, self._output_limit, frames.NO_PROBE
        )
        items: list[bytes] = []
        code = b""
        for turn, batch in zip(turns, batches, strict=True):
            if turn.job.code != code:
                code = turn.job.code
                items += (b"", code) if turn.job.confined else (code,)
            items += batch
        return head + frames.pack([(frames.OK, data) for data in items])

    def _present_at_a_death(self, turns: Sequence[_Turn]) -> list[_Turn]:
        """Those that have to be run again."""
        (turn, *company) = turns
        if not company:
            turn.job.deaths += 1
            if turn.job.deaths >= _DEATHS:
                turn.end([Claim(Status.POISON)] * len(turn.rest))
                return []
        return _apart(turns)

    def _told(self, turns: Sequence[_Turn], batches: Sequence[Sequence[bytes]], reply: bytes) -> list[_Turn]:
        """Give each job what is its own. Those that have to be run again."""
        said, death = claims.parse(reply, sum(map(len, batches)))
        if len(turns) > 1 and death and death not in _RETRIED:
            return _apart(turns)
        again: list[_Turn] = []
        over = False
        for place, (turn, batch) in enumerate(zip(turns, batches, strict=True)):
            mine, said = said[: len(batch)], said[len(batch) :]
            turn.found += mine
            if not turn.rest:
                turn.end()
            elif len(mine) < len(batch) and place == 0:
                again += self._cut_short(turn, batch, death, silent=not mine)
            else:
                if len(mine) < len(batch):  # the first such may have paid for those before it
                    turn.alone |= turn.held_up or not over
                    turn.held_up = True
                again.append(turn)
            over |= len(mine) < len(batch)
        return again

    def _cut_short(self, turn: _Turn, batch: Sequence[bytes], death: str, *, silent: bool) -> list[_Turn]:
        """What becomes of the job that was its child's first, when that ended too early."""
        if death in _RETRIED and not self._last:
            turn.end()
            return []
        if death == Status.PROTOCOL and len(batch) > 1:
            turn.width = 1  # garbage, and nobody to blame: one input per child
        elif silent:
            turn.end([Claim(death) if data == batch[0] else _NOT_RUN for data in turn.rest])
            return []
        return [turn]


def _apart(turns: Sequence[_Turn]) -> list[_Turn]:
    for turn in turns:
        turn.alone = True
    return list(turns)
