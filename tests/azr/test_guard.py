"""The guard kills exactly the marked processes, also when the driver is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

from azr.guard import TOKEN, kill_run

SLEEPER = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
PARENT = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import sys; sys.stdin.read()"], env={}, start_new_session=True)
print(child.pid, flush=True)
sys.stdin.read()
"""
DRIVER = """
import os, subprocess, sys
from azr.guard import guarded
with guarded() as guard:
    command = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    marked = subprocess.Popen(command, start_new_session=True, **pipes)
    bare = subprocess.Popen(command, start_new_session=True, env={}, **pipes)
    for child in (marked, bare):
        child.stdout.readline()
        os.set_inheritable(child.stdin.fileno(), True)
    guard.remember()
    keeper = subprocess.Popen(["sleep", "60"], env={}, close_fds=False, stdout=subprocess.DEVNULL)  # holds their pipes
    print(marked.pid, bare.pid, keeper.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_kills_marked_processes_and_no_other() -> None:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    marked = subprocess.Popen(SLEEPER, env={**os.environ, TOKEN: "mine"}, **streams)  # type: ignore[call-overload]
    other = subprocess.Popen(SLEEPER, env={**os.environ, TOKEN: "another"}, **streams)  # type: ignore[call-overload]
    for process in (marked, other):
        process.stdout.readline()
    assert kill_run("mine") == [marked.pid]
    assert marked.wait() == -signal.SIGKILL
    assert other.poll() is None
    other.communicate()
    marked.communicate()
    assert other.returncode == 0


def test_kills_descendants_that_dropped_their_mark() -> None:
    command = [sys.executable, "-c", PARENT]
    with subprocess.Popen(
        command, env={**os.environ, TOKEN: "mine"}, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as marked:
        assert marked.stdout is not None
        child = int(marked.stdout.readline())
        assert kill_run("mine") == sorted([marked.pid, child])
    assert ends(child)


def test_outlives_a_killed_driver_and_kills_what_is_left() -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    output, _ = driver.communicate(timeout=60)  # ends when the guard, which shares the pipe, has ended
    assert driver.returncode == -signal.SIGKILL
    *children, keeper = map(int, output.split())
    os.kill(keeper, signal.SIGKILL)
    assert [pid for pid in children if not ends(pid)] == []


def ends(pid: int, within: float = 10.0) -> bool:
    """Whether a process, which is no child of this one, ends in time; a killed one may take a moment."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    ready, _, _ = select.select([descriptor], [], [], within)
    os.close(descriptor)
    return bool(ready)
