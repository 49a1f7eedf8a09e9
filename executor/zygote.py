"""Fork server: confined once, then one child per request, one at a time. Run as a script; control socket on fd 0.

Request: frames.REQUEST, then items as executor/runner.py takes them. Reply: frames.REPORT, then the child's bytes,
untouched. The first reply, unasked: frames.HELLO, or 255 and why there can be no sandbox.

The loop is executor/forkloop.c where it could be built, else `serve` here: the same contract for about a third more
CPU time, except that a child of `serve` may find remains of earlier jobs in its memory.
Never runs or parses anything from a program itself, holds no secret, and no file or socket but its control socket. It
ends when that closes, and each child with it.
"""

from __future__ import annotations

import gc
import importlib
import os
import select
import signal
import sys
import time

from common.errors import SandboxUnavailable
from executor import frames, runner, sandbox, seccomp, selftest

CONTROL = 0
RESULT = 3  # the only descriptor a child has
_MORE = 1 << 16
_DESCRIPTORS = 64


Job = tuple[int, int, list[bytes]]  # probe of the self-test, bytes of one output, data of the items


def serve(control: int, result: int, code: bytes) -> Job | None:
    """Fork a child for each request. Returns in a child, with its job, locked down to the descriptor `result` by the
    filter `code`; and once in the parent, None, when the control socket closes."""
    filter_ = sandbox.Filter(code)
    while True:
        try:
            request = frames.receive(control)
        except EOFError:
            return None
        cpu_ms, wall_ms, bound, output_limit, probe = frames.REQUEST.unpack_from(request)
        parent = os.getpid()
        ours, theirs = os.pipe()
        try:
            child = os.fork()
        except OSError:  # no processes or no memory just now
            os.close(ours)
            os.close(theirs)
            frames.send(control, frames.REPORT.pack(frames.NO_CHILD, frames.ENDED_ITSELF, 0))
            continue
        if not child:
            _lock_down(parent, theirs, result, cpu_ms, filter_)
            return probe, output_limit, [data for _, data in frames.unpack(request[frames.REQUEST.size :])]
        os.close(theirs)
        output, ended = _listen(ours, time.monotonic() + wall_ms / 1000, bound)
        os.kill(child, signal.SIGKILL)  # bounds the wait; it cannot change how an ended child has ended
        _, status, usage = os.wait4(child, 0)
        cpu = usage.ru_utime + usage.ru_stime
        frames.send(control, frames.REPORT.pack(status, ended, int(cpu * 1e6)) + output)


def _lock_down(parent: int, pipe: int, result: int, cpu_ms: int, filter_: sandbox.Filter) -> None:
    """In the child. Ends the process rather than run anything with a layer missing."""
    locked = False
    try:
        if pipe != result:
            os.dup2(pipe, result)
        os.closerange(0, result)
        os.closerange(result + 1, _DESCRIPTORS)
        sandbox.die_with_parent()
        sandbox.limit_cpu(cpu_ms / 1000)
        if os.getppid() == parent:
            filter_.install()
            locked = True
    finally:
        if not locked:
            os.kill(os.getpid(), frames.NO_CHILD)
            os._exit(1)


def _listen(pipe: int, deadline: float, bound: int) -> tuple[bytes, int]:
    """What the child writes until it closes, and why we stopped listening."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    parts: list[bytes] = []
    size, ended = 0, frames.ENDED_ITSELF
    while True:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            ended = frames.ENDED_BY_CLOCK
            break
        part = os.read(pipe, _MORE)
        if not part:
            break
        parts.append(part)
        size += len(part)
        if size > bound:
            ended = frames.ENDED_BY_FLOOD
            break
    os.close(pipe)
    return b"".join(parts), ended


def _live(job: Job, beyond: int) -> None:
    """The whole life of a child. `beyond`: bytes of memory it may not have."""
    probe, output_limit, items = job
    status = 1
    try:
        if probe == frames.NO_PROBE:
            runner.run(items, RESULT, output_limit)
            status = 0
        else:
            status = selftest.run(selftest.PROBES[probe], beyond)
    finally:
        os._exit(status)


def main(memory_mb: str, nice: str, native: str) -> None:
    """`nice`: added to the priority of children, too. `native` empty: the loop in Python even if the other is there."""
    os.nice(int(nice))
    loop, memory = serve, int(memory_mb) << 20
    if native:
        try:
            loop = importlib.import_module("executor._forkloop").serve
        except ImportError:  # no compiler when the project was installed
            native = ""
    try:
        runner.prepare()
        machine = sandbox.machine()
        code = seccomp.execution_filter(machine, write_to=RESULT)
        own_filter = sandbox.Filter(seccomp.fork_server_filter(machine))
        landlock = sandbox.confine(memory)
        own_filter.install()
    except SandboxUnavailable as error:
        frames.send(CONTROL, frames.UNAVAILABLE + str(error).encode())
        return
    gc.collect()
    gc.freeze()  # keeps collections, and so copies of pages, out of the children
    gc.disable()
    frames.send(CONTROL, frames.HELLO.pack(landlock, bool(native)))
    job = loop(CONTROL, RESULT, code)
    if job is not None:
        _live(job, 2 * memory)


if __name__ == "__main__":
    main(*sys.argv[1:])
