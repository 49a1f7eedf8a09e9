"""Fork servers and the checker alone, one request at a time, each between two looks at its CPU clock."""

from __future__ import annotations

import asyncio
import resource
import statistics
import subprocess
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass

from azr.bench.executor import meter
from azr.bench.executor.workload import INPUTS, Case
from azr.bench.figures import Reading, percentile
from common.config import ExecutorConfig
from common.errors import PartFailed
from executor import frames
from executor.process import Process
from executor.reader import Reader

RUNS = 2  # of each input of a job with several, as on the second side of a shard
_MARGIN = 10.0  # seconds


@dataclass(frozen=True, slots=True)
class Compiled:
    """A program and its inputs, as a fork server takes them."""

    code: bytes
    inputs: tuple[bytes, ...]
    confined: bool  # whether it may share a child


def subshells(count: int) -> list[Reading]:
    """What the smallest process costs here: the part of a fork that is the machine's. `sh` forks for each `(:)`."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(["sh", "-c", f"i=0; while [ $i -lt {count} ]; do (:); i=$((i+1)); done"], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return [Reading("this machine", "fork of a shell, nothing run: CPU, mean", "ms", seconds / count * 1e3)]


async def compiled(cases: Sequence[Case], reader: Reader) -> list[Compiled]:
    """With several inputs each."""
    found = []
    for case in cases:
        job = case.several()
        program, inputs = await reader.program(job.program), await reader.expressions(job.inputs)
        confined = program.confined and all([read.confined for read in inputs])
        found.append(Compiled(program.payload, tuple([read.payload for read in inputs]), confined))
    return found


async def forks(server: Process, programs: Sequence[Compiled], config: ExecutorConfig) -> list[Reading]:
    """One side, without what the checker and this process do. PartFailed if a program has no outcome in it."""
    section = f"fork server + child, fork loop {'in C' if server.native else 'in Python'}"
    loop = asyncio.get_running_loop()
    empty = [await _cpu_of_a_fork(server, [program.code], 0, config) for program in programs]
    spent, waited, faults = [], [], meter.faults(server.pid or 0)
    for program in programs:
        start = loop.time()
        spent.append(await _cpu_of_a_fork(server, [program.code, program.inputs[0]], 1, config))
        waited.append(loop.time() - start)
    faults = meter.faults(server.pid or 0) - faults
    several, runs = [], 0
    for program in programs:
        inputs = program.inputs * RUNS
        several.append(await _cpu_of_a_fork(server, [program.code, *inputs], len(inputs), config))
        runs += len(inputs)
    return [
        Reading(section, "no input, nothing run: CPU, mean", "ms", statistics.mean(empty) * 1e3),
        Reading(section, "1 input: CPU, mean", "ms", statistics.mean(spent) * 1e3),
        Reading(section, "1 input: CPU, p50", "ms", statistics.median(spent) * 1e3),
        Reading(section, "1 input: CPU, p99", "ms", percentile(spent, 0.99) * 1e3),
        Reading(section, "1 input: page faults, mean", "", faults / len(programs)),
        Reading(section, "1 input: wall, p50", "ms", statistics.median(waited) * 1e3),
        Reading(section, "1 input: wall, p99", "ms", percentile(waited, 0.99) * 1e3),
        Reading(section, f"{INPUTS} inputs x {RUNS}: CPU, mean", "ms", statistics.mean(several) * 1e3),
        Reading(section, f"{INPUTS} inputs x {RUNS}: executions", "/s/core", runs / sum(several)),
        *await _shared(section, server, [program for program in programs if program.confined], config),
    ]


async def _shared(section: str, server: Process, programs: Sequence[Compiled], config: ExecutorConfig) -> list[Reading]:
    """Children of several programs. Nothing, if none of the programs may share a child."""
    if not programs:
        return []
    one = [Compiled(program.code, program.inputs[:1], True) for program in programs]
    several = [Compiled(program.code, program.inputs * RUNS, True) for program in programs]
    what = f"{config.together} programs in a child"
    spent, runs = await _cpu_of_company(server, one, config)
    found = [Reading(section, f"{what}, 1 input: CPU per program", "ms", spent / runs * 1e3)]
    spent, runs = await _cpu_of_company(server, several, config)
    return [*found, Reading(section, f"{what}, {INPUTS} inputs x {RUNS}: executions", "/s/core", runs / spent)]


async def _cpu_of_company(server: Process, programs: Sequence[Compiled], config: ExecutorConfig) -> tuple[float, int]:
    """(seconds, executions)."""
    seconds, executions = 0.0, 0
    for place in range(0, len(programs), config.together):
        group = programs[place : place + config.together]
        runs = sum(len(program.inputs) for program in group)
        items = [data for program in group for data in (b"", program.code, *program.inputs)]
        seconds += await _cpu_of_a_fork(server, items, runs, config)
        executions += runs
    return seconds, executions


async def _cpu_of_a_fork(server: Process, items: Sequence[bytes], runs: int, config: ExecutorConfig) -> float:
    """Seconds of server and child. What the server does after its reply counts for the next fork."""
    bound = runs * (config.output_limit + frames.ITEM.size)
    limits = round(config.cpu_limit * 1000), round(config.wall_limit * 1000), bound, config.output_limit
    request = frames.REQUEST.pack(*limits, frames.NO_PROBE) + frames.pack([(frames.OK, data) for data in items])
    before = meter.own_cpu(server.pid or 0)
    reply = await server.ask(request, _MARGIN + config.wall_limit)
    seconds = meter.own_cpu(server.pid or 0) - before
    microseconds: int = frames.REPORT.unpack_from(reply)[2]
    answers = frames.unpack(reply[frames.REPORT.size :])
    if len(answers) != runs or any(status != frames.OK for status, _ in answers):
        raise PartFailed(server.name, "a program that had run before did not run", hint="a larger executor.cpu_limit")
    return seconds + microseconds * 1e-6


async def checker(reader: Reader, cases: Sequence[Case]) -> list[Reading]:
    """One text a request."""
    pid = reader.process.pid or 0

    async def each(what: str, asked: Sequence[Awaitable[object]]) -> Reading:
        before = meter.own_cpu(pid)
        for question in asked:
            await question
        return Reading("checker", what, "ms", (meter.own_cpu(pid) - before) / len(asked) * 1e3)

    return [
        await each("CPU per program", [reader.program(case.program) for case in cases]),
        await each("CPU per input", [reader.expressions([case.given]) for case in cases]),
        await each("CPU per value", [reader.values([case.output.encode()]) for case in cases]),
    ]
