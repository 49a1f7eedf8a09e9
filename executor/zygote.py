"""Fork server: confined once, then one child per job, one job at a time. Run as a script; control socket on fd 0.

Request: frames.REQUEST, then items: marshalled code, marshalled input expressions. Reply: frames.REPORT, then the
child's bytes, untouched. The first reply, unasked: u8 Landlock ABI, or 255 and why there can be no sandbox.

Never runs or parses anything from a program itself, holds no secret, and no file or socket but its control socket. It
ends when that closes, and each child with it.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from common.errors import SandboxUnavailable
from executor import frames, runner, sandbox, seccomp, selftest

CONTROL = 0
RESULT = 3  # the only descriptor a child has
UNAVAILABLE = 255
_MORE = 1 << 16


class Zygote:
    def __init__(self, memory_bytes: int) -> None:
        """Confine this process for good. SandboxUnavailable if that is impossible or a probe got through."""
        runner.prepare()
        machine = sandbox.machine()
        self._filter = sandbox.Filter(seccomp.execution_filter(machine, write_to=RESULT))
        own_filter = sandbox.Filter(seccomp.fork_server_filter(machine))
        self.landlock = sandbox.confine(memory_bytes)
        own_filter.install()
        gc.collect()
        gc.freeze()  # keeps collections, and so copies of pages, out of the children
        gc.disable()
        self._prove(memory_bytes)

    def serve(self) -> None:
        """Until the control socket closes."""
        while True:
            try:
                request = frames.receive(CONTROL)
            except EOFError:
                return
            cpu_ms, wall_ms, output_limit = frames.REQUEST.unpack_from(request)
            items = frames.unpack(request[frames.REQUEST.size :])

            def job(items: list[frames.Item] = items, output_limit: int = output_limit) -> int:
                runner.run(items, RESULT, output_limit)
                return 0

            child, pipe = self._fork(job, cpu_ms / 1000)
            bound = (output_limit + frames.ITEM.size) * len(items) + _MORE
            output, ended = _listen(pipe, time.monotonic() + wall_ms / 1000, bound)
            status, cpu = _reap(child)
            frames.send(CONTROL, frames.REPORT.pack(status, ended, int(cpu * 1e6)) + output)

    def _fork(self, job: Callable[[], int], cpu_seconds: float) -> tuple[int, int]:
        """Start `job` in a locked child that exits with what it returns: (pid, our end of its pipe)."""
        ours, theirs = os.pipe()
        child = os.fork()
        if child:
            os.close(theirs)
            return child, ours
        status = 1
        try:
            if theirs != RESULT:
                os.dup2(theirs, RESULT)
            os.closerange(0, RESULT)
            os.closerange(RESULT + 1, 64)
            sandbox.die_with_parent()
            sandbox.limit_cpu(cpu_seconds)
            self._filter.install()
            status = job()
        finally:
            os._exit(status)

    def _prove(self, memory_bytes: int) -> None:
        broken: list[str] = []
        for probe in selftest.PROBES:

            def job(probe: selftest.Probe = probe) -> int:
                return selftest.run(probe, 2 * memory_bytes)

            child, pipe = self._fork(job, selftest.CPU_SECONDS)
            _listen(pipe, time.monotonic() + 10, _MORE)
            status, _ = _reap(child)
            if not selftest.passed(probe, status):
                broken.append(f"{probe.name} (wait status {status})")
        if broken:
            raise SandboxUnavailable(f"self-test: not refused: {', '.join(broken)}")


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


def _reap(child: int) -> tuple[int, float]:
    """(wait status, CPU seconds). The kill bounds the wait; it cannot change how an ended child has ended."""
    os.kill(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return status, usage.ru_utime + usage.ru_stime


def main(memory_mb: str) -> None:
    try:
        zygote = Zygote(int(memory_mb) << 20)
    except SandboxUnavailable as error:
        frames.send(CONTROL, bytes([UNAVAILABLE]) + str(error).encode())
        return
    frames.send(CONTROL, bytes([zygote.landlock]))
    zygote.serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
