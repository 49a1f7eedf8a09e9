"""What every process of a run did when, read from the trace that it leaves (learner/trace.py).

A *life* of a process goes from one begin of its ledger to the next: a part that was started again, or a resumed run,
has several. Its wall time is from the first state of each life to the last one, so a report that was lost, or one that
was written twice, shows as a residue: what the states do not sum to.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common.errors import ConfigError
from common.push_span import PushSpan
from learner import trace

_TOUCHING = 1e-5  # seconds between two pieces of one state, which a report cut


@dataclass(frozen=True, slots=True)
class Span:
    """Seconds of the wall clock, as everywhere here."""

    state: str
    begin: float
    end: float


@dataclass(frozen=True, slots=True)
class Mark:
    """Something of the intake that learner steps wait for."""

    name: str
    at: float
    args: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Gpu:
    """As sampled by one process: mean share of time in use, 0–1, and most memory, bytes."""

    process: str
    name: str
    samples: int
    busy: float
    memory: int


@dataclass(frozen=True, slots=True)
class Process:
    """`lives`: each the states one after the other."""

    name: str
    lives: tuple[tuple[Span, ...], ...]

    @property
    def wall(self) -> float:
        return sum(max(s.end for s in life) - min(s.begin for s in life) for life in self.lives)

    @property
    def states(self) -> dict[str, float]:
        """Seconds in each, the longest first."""
        seconds: dict[str, float] = {}
        for span in (span for life in self.lives for span in life):
            seconds[span.state] = seconds.get(span.state, 0.0) + span.end - span.begin
        return dict(sorted(seconds.items(), key=lambda item: -item[1]))

    @property
    def residue(self) -> float:
        """What the states sum to beyond the wall time, as a share of it: below 0 something is missing."""
        return sum(self.states.values()) / self.wall - 1.0 if self.wall else 0.0


@dataclass(frozen=True, slots=True)
class Timeline:
    processes: tuple[Process, ...]
    marks: tuple[Mark, ...]
    gpus: tuple[Gpu, ...]
    pushes: tuple[PushSpan, ...] = ()

    def process(self, name: str) -> Process | None:
        return next((process for process in self.processes if process.name == name), None)

    def between(self, begin: float, end: float) -> Timeline:
        """What of the processes and marks lies there; samples of GPUs have no place in time and are left out."""
        processes = [Process(p.name, tuple(_clipped(life, begin, end) for life in p.lives)) for p in self.processes]
        kept = [Process(p.name, tuple(filter(None, p.lives))) for p in processes if any(p.lives)]
        return Timeline(tuple(kept), tuple(mark for mark in self.marks if begin < mark.at <= end), ())


def _clipped(life: Sequence[Span], begin: float, end: float) -> tuple[Span, ...]:
    cut = [Span(span.state, max(span.begin, begin), min(span.end, end)) for span in life]
    return tuple(span for span in cut if span.begin < span.end)


def read(folder: Path) -> Timeline:
    """Of a run, also while it goes on or if it was cut short. ConfigError if there is no trace to be read."""
    path = folder / "trace.json"
    if not path.exists():
        raise ConfigError(f"{folder} is no run folder, or its run never came to start: it has no trace.json")
    try:
        return of(trace.read(path))
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path} is damaged, or no trace of a run: {type(error).__name__}: {error}") from None


def of(events: Sequence[Mapping[str, Any]]) -> Timeline:
    """`events` of a part in the order in which they happened."""
    names = {event["pid"]: str(event["args"]["name"]) for event in events if event["ph"] == "M"}
    lives: dict[str, list[list[Span]]] = {}
    loads: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    marks: list[Mark] = []
    pushes: list[PushSpan] = []
    for event in events:
        name, kind = names[event["pid"]], event["ph"]
        if kind == "X" and event.get("tid") == trace.PUSHES:
            of_push = event["ts"] / 1e6, event["dur"] / 1e6, event["args"]["tokens"]
            pushes.append(PushSpan(event["name"], event["args"]["version"], *of_push))
        elif kind == "X":
            begin = event["ts"] / 1e6
            _append(lives.setdefault(name, [[]])[-1], Span(event["name"], begin, begin + event["dur"] / 1e6))
        elif kind == "C" and "busy" in event["args"]:
            loads.setdefault((name, event["name"]), []).append(event["args"])
        elif kind == "i" and event["name"] == trace.BEGIN:
            lives.setdefault(name, []).append([])
        elif kind == "i":
            marks.append(Mark(event["name"], event["ts"] / 1e6, event["args"]))
    processes = [Process(name, tuple(tuple(life) for life in found if life)) for name, found in sorted(lives.items())]
    gpus = [
        Gpu(process, gpu, len(seen), sum(s["busy"] for s in seen) / len(seen), max(s["memory"] for s in seen))
        for (process, gpu), seen in sorted(loads.items())
    ]
    return Timeline(tuple(processes), tuple(sorted(marks, key=lambda mark: mark.at)), tuple(gpus), tuple(pushes))


def _append(life: list[Span], span: Span) -> None:
    last = life[-1] if life else None
    if last is not None and last.state == span.state and abs(span.begin - last.end) < _TOUCHING:
        life[-1] = Span(last.state, last.begin, span.end)
    else:
        life.append(span)


def load_rows(path: Path) -> list[dict[str, Any]]:
    """Whole rows of a file that may still grow; none if there is no file."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
