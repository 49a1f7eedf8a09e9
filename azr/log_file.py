"""Where everything goes that a process prints."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def redirect(log: Path) -> None:
    """Send standard output and error of this process, C libraries included, to its log file."""
    log.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
