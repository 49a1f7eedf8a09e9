"""Reading a run's trace: what happened at the same time.

The trace is Chrome's format (chrome://tracing, ui.perfetto.dev): one process per part, a complete event per ledger
state (thread STATES) and per phase of a weight push at an actor (thread PUSHES; common/push_span.py), a counter event
TOKENS per completed request, one per sample of a GPU and one, COSTS, per report of what the work of an actor cost, an
instant event BEGIN where the ledger of a process begins (a part that is started again has several), and marks of the
part INTAKE:

    batch      of `step` formed; the last group came from `actor` (-1: from the journal)
    version    `version` in service; `held` 1 if it is to be evaluated before another goes out
    evaluated  the evaluation of `version` is over
    step       the batch of `step` is trained
    eta        staleness.auto has made `eta` of what was `before`; a counter of that name draws it
"""

from __future__ import annotations

import json
import os
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

END_OF_EVENT = ",\n"
BEGIN = "begin"
STATES, PUSHES = 0, 1
COSTS = "costs"
TOKENS = "tokens"
INTAKE = "intake"


@dataclass(frozen=True, slots=True)
class Overlap:
    """Learner steps in whose duration a request completed, so tokens were produced."""

    steps: int
    with_tokens: int

    @property
    def share(self) -> float:
        return self.with_tokens / self.steps if self.steps else 0.0


def read(path: Path) -> list[dict[str, Any]]:
    """Events of a trace, also of one whose run was cut short."""
    text = path.read_text()
    if not text.endswith("]\n"):
        text = text[: max(text.rfind(END_OF_EVENT), 1)] + "]"
    return [event for event in json.loads(text) if event]


def reopen(path: Path) -> dict[str, int]:
    """Make `path` ready for more events: begin it, or cut it after its last whole event. Its parts, name → pid."""
    last = path.read_bytes().rfind(END_OF_EVENT.encode()) if path.exists() else -1
    if last < 0:
        path.write_text("[\n")
        return {}
    os.truncate(path, last + len(END_OF_EVENT))
    return {event["args"]["name"]: event["pid"] for event in read(path) if event["ph"] == "M"}


def overlap(events: Sequence[dict[str, Any]]) -> Overlap:
    """Over the `train` spans of trainer rank 0."""
    names = {e["pid"]: e["args"]["name"] for e in events if e["ph"] == "M"}
    produced = sorted(e["ts"] for e in events if e["ph"] == "C" and e["args"].get("tokens", 0) > 0)
    spans = [e for e in events if e["ph"] == "X" and e["name"] == "train" and names[e["pid"]] == "trainer-0"]
    steps = _joined([(e["ts"], e["ts"] + e["dur"]) for e in spans])
    hit = sum(_between(produced, begin, end) for begin, end in steps)
    return Overlap(len(steps), hit)


def _joined(spans: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A state that was reported in pieces is one span again."""
    out: list[tuple[float, float]] = []
    for begin, end in sorted(spans):
        if out and begin - out[-1][1] < 1.0:  # microseconds
            out[-1] = (out[-1][0], end)
        else:
            out.append((begin, end))
    return out


def _between(times: Sequence[float], begin: float, end: float) -> bool:
    at = bisect_left(times, begin)
    return at < len(times) and times[at] <= end
