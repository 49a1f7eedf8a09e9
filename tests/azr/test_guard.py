"""The guard kills exactly the marked processes, also when the driver is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from azr.guard import TOKEN, kill_marked

SLEEPER = [sys.executable, "-c", "import sys; print('up', flush=True); sys.stdin.read()"]
DRIVER = """
import os, subprocess, sys
from azr.guard import guarded
with guarded():
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    print(child.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def test_kills_marked_processes_and_no_other() -> None:
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    marked = subprocess.Popen(SLEEPER, env={**os.environ, TOKEN: "mine"}, **streams)  # type: ignore[call-overload]
    other = subprocess.Popen(SLEEPER, env={**os.environ, TOKEN: "another"}, **streams)  # type: ignore[call-overload]
    for process in (marked, other):
        process.stdout.readline()
    assert kill_marked("mine") == [marked.pid]
    assert marked.wait() == -signal.SIGKILL
    assert other.poll() is None
    other.communicate()
    marked.communicate()
    assert other.returncode == 0


def test_outlives_a_killed_driver_and_cleans_up() -> None:
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdout=subprocess.PIPE, text=True)
    output, _ = driver.communicate(timeout=60)  # the pipe closes when the guarded child is gone too
    assert driver.returncode == -signal.SIGKILL
    stat = Path(f"/proc/{int(output)}/stat")
    assert not stat.exists() or stat.read_text().split()[2] == "Z"
