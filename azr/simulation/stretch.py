"""What processes did, and what actors counted, in a stretch of a run, from its trace."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learner import trace


class Stretch:
    """The trace of a run between two moments of the wall clock."""

    def __init__(self, folder: Path, begin: float, end: float) -> None:
        path = folder / "trace.json"
        events = trace.read(path) if path.exists() else []
        self._names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
        self._begin, self._end = begin, end
        self._spans = [e for e in events if e["ph"] == "X"]
        self.actors = sum(name.startswith("actor-") for name in self._names.values())
        self.length = end - begin
        self.costs: Counter[str] = Counter()
        for event in events:
            if event["ph"] == "C" and event["name"] == trace.COSTS and begin <= event["ts"] / 1e6 <= end:
                self.costs.update(event["args"])

    def seconds(self, part: str, *states: str) -> float:
        """That parts whose names begin with `part` spent in `states`."""
        return sum(self._within(e) for e in self._spans if self._is(e, part, states))

    def count(self, part: str, state: str) -> int:
        """How often `part` entered `state`; a span that was reported in pieces is one."""
        ends: list[float] = []
        for event in sorted((e for e in self._spans if self._is(e, part, (state,))), key=lambda e: float(e["ts"])):
            if self._within(event) > 0:
                if ends and event["ts"] - ends[-1] < 1.0:  # microseconds
                    ends.pop()
                ends.append(event["ts"] + event["dur"])
        return len(ends)

    def _is(self, event: dict[str, Any], part: str, states: Sequence[str]) -> bool:
        return event["name"] in states and str(self._names[event["pid"]]).startswith(part)

    def _within(self, event: dict[str, Any]) -> float:
        begin, end = float(event["ts"]) / 1e6, float(event["ts"] + event["dur"]) / 1e6
        return max(0.0, min(self._end, end) - max(self._begin, begin))
