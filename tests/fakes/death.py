"""The death of a process as the disk sees it, at any line of its code."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import learner

CODE = str(Path(learner.__file__).parent)


class Death:
    """Strikes after so many lines of the learner's code, counted while it is entered: `folder` is copied to `image`.

    What the process does from then on nobody sees: `image` is what kill -9 would have left, with the same transactions
    open and the same records not yet written. Whoever plays its peers asks `struck` before an answer reaches them.
    Not covered: a death inside one system call, such as a write that is cut.
    """

    def __init__(self, folder: Path, image: Path, lines: int) -> None:
        self.folder, self.image = folder, image
        self.struck = False
        self._left = lines

    def __enter__(self) -> None:
        self._before = sys.gettrace()
        if not self.struck:
            sys.settrace(self._called)

    def __exit__(self, *_: object) -> None:
        sys.settrace(self._before)

    def strike(self) -> None:
        self.struck = True
        shutil.copytree(self.folder, self.image)

    def _called(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._line if not self.struck and frame.f_code.co_filename.startswith(CODE) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and not self.struck:
            self._left -= 1
            if self._left <= 0:
                self.strike()
        return self._line
