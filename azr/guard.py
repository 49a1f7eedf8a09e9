"""No process outlives its run, not even when the driver is killed and cannot clean up.

Every process that a run starts on this machine inherits an environment variable with a token of the run; that is how
they are found, never by name. A guard process waits for the driver's end of a pipe to close and then kills what is
left. Sandboxes have an empty environment; they die with the process that owns them (PR_SET_PDEATHSIG).

Not covered: processes on other machines of a Ray cluster, which end with the driver's job there.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

TOKEN = "AZR_RUN_TOKEN"


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Mark this process's future children, guard them, and leave none behind."""
    token = secrets.token_hex(16)
    os.environ[TOKEN] = token
    guard = subprocess.Popen(
        [sys.executable, "-I", "-S", __file__, token],
        stdin=subprocess.PIPE,
        env={},
        start_new_session=True,
    )
    try:
        yield
    finally:
        del os.environ[TOKEN]
        kill_marked(token)
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()


def kill_marked(token: str) -> list[int]:
    """SIGKILL every process whose environment at its start held the token, this one excepted. Returns their ids."""
    killed: list[int] = []
    mark = f"{TOKEN}={token}".encode()
    found = True
    while found:  # a process may have been forked behind the scan
        found = False
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) in (os.getpid(), *killed):
                continue
            with contextlib.suppress(OSError):
                if mark in (entry / "environ").read_bytes().split(b"\0"):
                    os.kill(int(entry.name), signal.SIGKILL)
                    killed.append(int(entry.name))
                    found = True
    return killed


if __name__ == "__main__":
    sys.stdin.buffer.read()
    kill_marked(sys.argv[1])
