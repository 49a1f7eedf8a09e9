"""One process at a time works in a folder: two in one run would spoil each other's book, journal and checkpoints.

The lock is the process's, by flock(2) on a file in the folder, so it ends with the process, however that ends. Not
guaranteed on network file systems without locks.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import ConfigError


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Raises ConfigError while another process holds `folder`, which exists."""
    with (folder / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"another process works in {folder}: wait until it has ended, or stop it") from None
        yield
