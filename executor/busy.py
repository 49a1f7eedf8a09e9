"""What a shard is at, told to its ledger: its sandboxed processes do the work, and it is in the first state that holds.

run    a fork server has a request: a program is running, or waits for its turn
check  the checker reads a text
idle   neither: there is no job, or it is answered from memory or from the store
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from common.ledger import Ledger

RUN, CHECK, IDLE = "run", "check", "idle"


class Busy:
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._asked: Counter[str] = Counter()

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """`what`: run or check; any number at a time."""
        self._asked[what] += 1
        self._ledger.enter(self.state)
        try:
            yield
        finally:
            self._asked[what] -= 1
            self._ledger.enter(self.state)

    @property
    def state(self) -> str:
        return next((what for what in (RUN, CHECK) if self._asked[what]), IDLE)
