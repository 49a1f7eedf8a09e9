"""A process of an experiment: its output goes to a log file, and it ends with whoever started it.

It has a session of its own: an interrupt ends it as Ctrl-C ends `azr train`, and it has GRACE to end by itself. If this
process is killed, only a guard (azr.guard) ends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

GRACE = 60.0  # seconds that an interrupted process gets to end by itself


def run(arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None) -> int:
    """The exit code of a command; what it prints is appended to `log`. `environment`: variables besides our own."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, **(environment or {})},
        )
        try:
            return process.wait()
        except KeyboardInterrupt:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.wait(GRACE)
            raise
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def last_line(log: Path) -> str:
    """The last word of a user's error in `log`, or else its last line."""
    lines = log.read_text(errors="replace").strip().splitlines()
    return next((line for line in reversed(lines) if "azr:" in line), lines[-1] if lines else "it printed nothing")


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGTERM is a KeyboardInterrupt, too."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
