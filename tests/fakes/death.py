"""The death of a process as the disk sees it."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

CALLS = {"execute", "executemany", "executescript", "write", "rename", "unlink"}  # those that change a run folder
KEPT = ("tasks.sqlite", "tasks.sqlite-wal", ".azj", "latest.json")  # what a restart reads


class Death:
    """Strikes right after so many writes, counted while it is entered: `folder` is copied to `image`.

    What the process does from then on nobody sees: `image` is what kill -9 would have left, with the same transactions
    open and the same records not yet written. Whoever plays its peers asks `struck` before an answer reaches them.
    Not covered: a death inside one system call, such as a write that is cut.
    """

    def __init__(self, folder: Path, image: Path, writes: int) -> None:
        self.folder, self.image = folder, image
        self.struck = False
        self._left = writes
        self._folders = (folder, folder / "journal", folder / "checkpoints")
        self._seen = self._state()

    def __enter__(self) -> None:
        if not self.struck:
            sys.setprofile(self._called)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _state(self) -> list[tuple[str, int, int]]:
        entries = [entry for folder in self._folders if folder.is_dir() for entry in os.scandir(folder)]
        found = [(entry.name, entry.stat()) for entry in entries if entry.name.endswith(KEPT)]
        return sorted((name, stat.st_ino, stat.st_size) for name, stat in found)

    def _called(self, frame: FrameType, event: str, function: Any) -> None:
        if event != "c_return" or self.struck or function.__name__ not in CALLS:
            return
        if (state := self._state()) != self._seen:
            self._seen = state
            self._left -= 1
            if self._left == 0:
                self.struck = True
                shutil.copytree(self.folder, self.image)
