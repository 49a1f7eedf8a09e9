"""Two fork servers with different hash seeds, and the rule by which their claims become one outcome.

The second side runs the inputs in reverse order and twice over, so what depends on hashes, addresses, process ids,
order or state shows as disagreement. Sides agree when the checker's keys of what they said are equal.

A child may die of an input, and the inputs before it may have used up its time or memory, or tampered with it. So a
death is blamed on an input only if that input was the first of its child; otherwise a new child starts with it.
"""

from __future__ import annotations

import asyncio
import itertools
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.config import ExecutorConfig
from common.types import Status
from executor import frames
from executor.process import Died, Process
from executor.reader import Reader

_DEATHS = 2  # of fork servers, with the same job, that make the job poison
_MARGIN = 10.0  # seconds beyond the wall limit after which a silent fork server counts as dead
_DETAIL = 200  # bytes of a failure's reason
_DISAGREE = frozenset((Status.OK, Status.ERROR, Status.EXIT, Status.UNSERIALISABLE, Status.TOO_BIG, Status.INPUT))
_SPOKEN = frozenset(frames.STATUSES) - {Status.MEMORY}  # a child that says this lives on


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one program does with one input. `text` is canonical and `key` set when `status` is "ok"."""

    status: str
    text: str = ""
    key: bytes = b""


@dataclass(frozen=True, slots=True)
class _Claim:
    """What one child said, or why it said nothing. Not believed beyond this module."""

    status: str
    data: bytes = b""


@dataclass(slots=True)
class _Job:
    code: bytes
    deaths: int = 0


def zygote(config: ExecutorConfig, hash_seed: int) -> Process:
    script = Path(__file__).with_name("zygote.py")
    return Process(f"zygote {hash_seed}", script, (str(config.memory_mb),), hash_seed=hash_seed)


class Pair:
    def __init__(self, config: ExecutorConfig, reader: Reader, first: Process, second: Process) -> None:
        self.first, self.second = first, second
        self._reader = reader
        self._limits = frames.REQUEST.pack(
            round(config.cpu_limit * 1000), round(config.wall_limit * 1000), config.output_limit
        )
        self._timeout = config.wall_limit + _MARGIN

    async def run(self, code: bytes, inputs: Sequence[bytes]) -> list[Outcome]:
        """An outcome per input; all marshalled by the checker. SandboxUnavailable if a side cannot be restarted."""
        job = _Job(code)
        backwards = list(reversed(inputs))
        forth, back = await asyncio.gather(
            self._run_side(self.first, job, inputs), self._run_side(self.second, job, backwards * 2)
        )
        claims = list(zip(forth, back[: len(inputs)][::-1], back[len(inputs) :][::-1], strict=True))
        texts = [claim.data for trio in claims for claim in trio if claim.status == Status.OK]
        read = dict(zip(texts, await self._reader.values(texts), strict=True))
        outcomes = []
        for trio in claims:
            if all(claim.status == Status.OK for claim in trio):
                reads = [read[claim.data] for claim in trio]
                if not all(r.ok for r in reads):
                    crashed = any(r.status == Status.CHECKER_CRASH for r in reads)
                    outcomes.append(Outcome(Status.CHECKER_CRASH if crashed else Status.PROTOCOL, "not a value's text"))
                elif len({r.key for r in reads}) > 1:
                    outcomes.append(Outcome(Status.NONDETERMINISTIC))
                else:
                    outcomes.append(Outcome(Status.OK, _text(reads[0].payload), reads[0].key))
            else:
                outcomes.append(_failure(trio))
        return outcomes

    async def _run_side(self, side: Process, job: _Job, inputs: Sequence[bytes]) -> list[_Claim]:
        claims: list[_Claim] = []
        fatal: dict[bytes, _Claim] = {}  # an input that killed its child is not run again
        width = len(inputs)
        while len(claims) < len(inputs):
            rest = inputs[len(claims) :]
            if rest[0] in fatal:
                claims.append(fatal[rest[0]])
                continue
            batch = list(itertools.takewhile(lambda data: data not in fatal, rest[:width]))
            items = [(frames.OK, job.code), *((frames.OK, data) for data in batch)]
            try:
                reply = await side.ask(self._limits + frames.pack(items), self._timeout)
            except Died:
                job.deaths += 1
                if job.deaths >= _DEATHS:
                    return claims + [_Claim(Status.POISON)] * len(rest)
                continue
            found = _claims(reply, len(batch))
            if not found:
                width = 1  # garbage, and nobody to blame: one input per child
            elif found[0].status not in _SPOKEN:
                fatal[batch[0]] = found[0]
            claims += found
        return claims


def _claims(reply: bytes, asked: int) -> list[_Claim]:
    """What can be attributed to the first inputs, in order; nothing only where garbage came from several inputs."""
    status, ended, _ = frames.REPORT.unpack_from(reply)
    items, rest = frames.unpack_whole(reply[frames.REPORT.size :])
    surplus = len(items) > asked or (len(items) == asked and rest > 0)
    torn = rest > 0 and status == 0  # a child that leaves by itself leaves no half item
    if surplus or torn or any(code >= len(frames.STATUSES) for code, _ in items):
        return [_Claim(Status.PROTOCOL)] if asked == 1 else []
    claims = [_Claim(frames.STATUSES[code], data) for code, data in items]
    if not claims:
        return [_Claim(_death(status, ended))]
    if len(claims) > 1 and claims[-1].status == Status.MEMORY:
        claims.pop()
    return claims


def _death(status: int, ended: int) -> str:
    if ended == frames.ENDED_BY_CLOCK:
        return Status.TIMEOUT_WALL
    if ended == frames.ENDED_BY_FLOOD:
        return Status.FLOOD
    number = status & 0x7F
    if number == signal.SIGPROF:
        return Status.TIMEOUT_CPU
    if number == signal.SIGSYS:
        return Status.VIOLATION
    return f"crash_{number}" if number else Status.EXITED


def _failure(claims: Sequence[_Claim]) -> Outcome:
    """Of claims that are not all ok: the same failure from all, or what went wrong first, or disagreement."""
    if len({(claim.status, claim.data) for claim in claims}) > 1 and {c.status for c in claims} <= _DISAGREE:
        return Outcome(Status.NONDETERMINISTIC)
    claim = next(claim for claim in claims if claim.status != Status.OK)
    return Outcome(claim.status, _text(claim.data[:_DETAIL]))


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")
