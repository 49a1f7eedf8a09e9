"""What the learner waited for, step by step: the path of states that made the run as long as it is.

The path follows trainer rank 0. While it works, its own state is on the path. While it waits for a batch, the cause is
what came last before the wait ended:

    batch      the last group that the batch needed: the states of the actor that delivered it, all along the wait
    version    the weights of the step before: the weight-pause of the actors, and the rest is the push's stage; with
               exact staleness only from what let the push out: the batch that the version before had to sample first,
               or an evaluation; the wait until then is put down to that
    evaluated  an evaluation during which no push goes out
    none       the intake's own answer

So every second of the trainer's ledger is counted once. It names one cause of each wait; had it been removed, the next
one might have kept the trainer waiting nearly as long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from azr.timeline import Mark, Process, Span, Timeline

TRAINER = "trainer-0"
WAITING = "wait-batch"
PAUSE = "weight-pause"
ANSWER = ("intake", "answer")
JOURNAL = ("intake", "batch of the journal")
EVALUATION = ("evaluation", "round")
STAGE = ("push", "stage")
NOT_OVER = ("run", "not over")
_LATE = 0.05  # seconds by which the trainer may have its batch before the intake's mark of what let it go


@dataclass(frozen=True, slots=True)
class Stretch:
    """Seconds on the path in which `part` was in `state`, in `steps` of the learner steps."""

    part: str
    state: str
    seconds: float
    steps: int

    @property
    def waited(self) -> bool:
        return self.part != TRAINER


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """`steps` that were trained; `stretches`, the longest first, sum to `seconds`, the ledger of trainer rank 0."""

    steps: int
    seconds: float
    stretches: tuple[Stretch, ...]


def critical_path(timeline: Timeline, exact: int | None = None) -> CriticalPath | None:
    """None without a trainer. `exact`: η of a run with exact staleness."""
    trainer = timeline.process(TRAINER)
    if trainer is None:
        return None
    seconds: dict[tuple[str, str], float] = {}
    steps: dict[tuple[str, str], set[int | None]] = {}
    trained = [mark for mark in timeline.marks if mark.name == "step"]
    ends = [mark.at for mark in trained]
    causes = _Causes(timeline, exact)
    for span in (span for life in trainer.lives for span in life):
        at = bisect_left(ends, (span.begin + span.end) / 2)  # at its edges it may be another step by a hair
        step = trained[at].args["step"] if at < len(trained) else None
        own = [((TRAINER, span.state), span.end - span.begin)]
        for what, length in causes.of(span.begin, span.end, step) if span.state == WAITING else own:
            seconds[what] = seconds.get(what, 0.0) + length
            steps.setdefault(what, set()).add(step)
    stretches = [Stretch(*what, length, len(steps[what] - {None})) for what, length in seconds.items() if length > 0]
    stretches.sort(key=lambda stretch: -stretch.seconds)
    return CriticalPath(len({m.args["step"] for m in trained}), sum(seconds.values()), tuple(stretches))


class _Causes:
    def __init__(self, timeline: Timeline, exact: int | None) -> None:
        self._exact = exact
        self._actors = [process for process in timeline.processes if process.name.startswith("actor")]
        self._batches = [mark for mark in timeline.marks if mark.name == "batch"]
        self._versions = [mark for mark in timeline.marks if mark.name == "version"]
        self._rounds = list(_rounds(timeline.marks))

    def of(self, begin: float, end: float, step: int | None) -> Iterator[tuple[tuple[str, str], float]]:
        """(part, state) and seconds of the wait for `step`, None after the last one; they sum to the wait."""
        found = [
            *((mark.at, mark) for mark in self._batches if mark.args["step"] == step),
            *((mark.at, mark) for mark in self._versions),
            *((mark.at, mark) for _, mark in self._rounds if step is None or mark.args["version"] < step),
        ]
        if self._exact is not None and step is not None:
            last = step + self._exact  # sampled by this version; a step that saves waits for it
            found += [(mark.at, mark) for mark in self._batches if mark.args["step"] == last and mark.at <= end]
        within = [(at, mark) for at, mark in found if begin < at <= end + _LATE]
        if not within:
            yield (ANSWER if step is not None else NOT_OVER), end - begin
            return
        at, mark = max(within, key=lambda pair: pair[0])
        at = min(at, end)
        yield ANSWER, end - at
        yield from self._until(mark, begin, at, step)

    def _until(self, mark: Mark, begin: float, at: float, step: int | None) -> Iterator[tuple[tuple[str, str], float]]:
        """What kept `mark` from coming before `at`."""
        if mark.name == "batch":
            yield from self._actor(mark.args["actor"], begin, at)
        elif mark.name == "version":
            let_out = self._let_out(mark.args["version"], begin, at)
            yield from self._push(begin if let_out is None else let_out.at, at)
            if let_out is not None:
                yield from self._until(let_out, begin, let_out.at, step)
        else:
            began = max(begin, next(b for b, m in self._rounds if m is mark))
            yield EVALUATION, at - began
            if began > begin:
                yield from self.of(begin, began, step)

    def _let_out(self, version: int, begin: float, end: float) -> Mark | None:
        """What came last of that which `version` waits for with exact staleness."""
        if self._exact is None:
            return None
        found = [mark for mark in self._batches if mark.args["step"] == version - 1 + self._exact]
        found += [mark for _, mark in self._rounds if mark.args["version"] < version]
        return max((mark for mark in found if begin < mark.at < end), key=lambda mark: mark.at, default=None)

    def _actor(self, index: int, begin: float, end: float) -> Iterator[tuple[tuple[str, str], float]]:
        actor = next((a for a in self._actors if a.name == f"actor-{index}"), None)
        if actor is None:
            yield (JOURNAL if index < 0 else (f"actor-{index}", "unknown")), end - begin
            return
        pieces = [(span.state, length) for span, length in _clipped(actor, begin, end)]
        for state, length in pieces:
            yield (actor.name, state), length
        yield (actor.name, "unknown"), max(0.0, end - begin - sum(length for _, length in pieces))

    def _push(self, begin: float, end: float) -> Iterator[tuple[tuple[str, str], float]]:
        """The pause of the actor that paused longest."""
        pauses = [(sum(n for s, n in _clipped(a, begin, end) if s.state == PAUSE), a.name) for a in self._actors]
        longest, name = max(pauses, default=(0.0, ""))
        yield (name, PAUSE), longest
        yield STAGE, end - begin - longest


def _clipped(process: Process, begin: float, end: float) -> Iterator[tuple[Span, float]]:
    for span in (span for life in process.lives for span in life):
        length = min(span.end, end) - max(span.begin, begin)
        if length > 0:
            yield span, length


def _rounds(marks: Sequence[Mark]) -> Iterator[tuple[float, Mark]]:
    """Begin of each evaluation, and the mark of its end."""
    began: float | None = None
    for mark in marks:
        if mark.name == "version" and mark.args["held"] and began is None:
            began = mark.at
        elif mark.name == "evaluated" and began is not None:
            yield began, mark
            began = None
