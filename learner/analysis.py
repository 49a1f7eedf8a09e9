"""Figures of what a trained batch proposed and answered, from its texts: nothing that training needs.

Names are those of metrics.jsonl, `analysis/{stream}/…`; a figure without data is left out. Per stream of responses:

    thought                 mean characters of thought
    reflection              share of responses with words of doubt; reflection/right: share of these that are right
    step_comments           share of responses whose code has a plan in comments
    length/right, /wrong    mean tokens of responses that are right (of proposals: valid) and of the others

Of the valid proposals of a stream, and for `solve/induction` of the programs that were answered:

    cognitive, cyclomatic, halstead/{volume,difficulty,effort}, lines, statements       means over programs
    unparsed                share of programs without these figures
    edit_distance           mean over proposals of the mean distance to their references (deduction and abduction)
    inputs/…, outputs/…     types: how many; type/NAME: values of this type; distinct: share of texts that differ

Of the answers to tasks: `answers/distinct`, the mean over tasks of (different answers) / (answers).

Not measured: whether values differ that are written differently, or programs that do the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from common.types import STREAMS, Kind, Task
from learner.literals import argument_types
from learner.program import Program, distance, measure
from learner.response import plans_in_comments, reflects, thought


@dataclass(frozen=True, slots=True)
class Response:
    """`answer`: what was read in it as the answer or the proposed program; empty if nothing could be."""

    stream: Kind
    text: str
    tokens: int
    right: bool
    answer: str = ""


@dataclass(frozen=True, slots=True)
class Episode:
    """What came of one lease; `proposal` only if it was valid, `references` as far as they are known."""

    kind: Kind
    responses: tuple[Response, ...]
    proposal: Task | None = None
    references: tuple[Task, ...] = ()


def figures(episodes: Sequence[Episode]) -> dict[str, float]:
    """All figures of a batch."""
    out: dict[str, float] = {}
    for stream in STREAMS:
        found = dict(_of_responses([r for e in episodes for r in e.responses if r.stream is stream]))
        if stream.proposes:
            found |= _of_proposals([e for e in episodes if e.kind is stream and e.proposal is not None])
        else:
            found |= _of_answers([[r.answer for r in e.responses if r.stream is stream] for e in episodes])
        if stream is Kind.SOLVE_INDUCTION:
            answers = [r.answer for e in episodes for r in e.responses if r.stream is stream and r.answer]
            found |= _of_programs(answers)
        out |= {f"analysis/{stream}/{name}": value for name, value in found.items()}
    return out


def _of_responses(responses: Sequence[Response]) -> Iterator[tuple[str, float]]:
    if not responses:
        return
    yield "thought", _mean(len(thought(r.text)) for r in responses)
    doubting = [r for r in responses if reflects(r.text)]
    yield "reflection", len(doubting) / len(responses)
    if doubting:
        yield "reflection/right", _mean(r.right for r in doubting)
    yield "step_comments", _mean(plans_in_comments(r.text, r.answer) for r in responses)
    for name, right in (("right", True), ("wrong", False)):
        lengths = [r.tokens for r in responses if r.right is right]
        if lengths:
            yield f"length/{name}", _mean(lengths)


def _of_proposals(episodes: Sequence[Episode]) -> dict[str, float]:
    tasks = [e.proposal for e in episodes if e.proposal is not None]
    out = _of_values("inputs", [text for task in tasks for text in task.inputs])
    out |= _of_values("outputs", [text for task in tasks for text in task.outputs])
    own = [e for e in episodes if e.kind is not Kind.PROPOSE_INDUCTION]  # there the program was given
    out |= _of_programs([e.proposal.program for e in own if e.proposal is not None])
    distances = [d for e in own if (d := _to_references(e)) is not None]
    if distances:
        out["edit_distance"] = _mean(distances)
    return out


def _to_references(episode: Episode) -> float | None:
    program = measure(episode.proposal.program) if episode.proposal is not None else None
    references = [p for task in episode.references if (p := measure(task.program)) is not None]
    return _mean(distance(program, reference) for reference in references) if program and references else None


def _of_programs(sources: Sequence[str]) -> dict[str, float]:
    if not sources:
        return {}
    programs: list[Program] = [p for source in sources if (p := measure(source)) is not None]
    out = {"unparsed": 1.0 - len(programs) / len(sources)}
    if programs:
        out["cognitive"] = _mean(p.cognitive for p in programs)
        out["cyclomatic"] = _mean(p.cyclomatic for p in programs)
        out["halstead/volume"] = _mean(p.volume for p in programs)
        out["halstead/difficulty"] = _mean(p.difficulty for p in programs)
        out["halstead/effort"] = _mean(p.effort for p in programs)
        out["lines"] = _mean(p.lines for p in programs)
        out["statements"] = _mean(p.statements for p in programs)
    return out


def _of_values(name: str, texts: Sequence[str]) -> dict[str, float]:
    if not texts:
        return {}
    types = Counter(kind for text in texts for kind in argument_types(text))
    counts = {f"{name}/type/{kind}": float(count) for kind, count in sorted(types.items())}
    return {f"{name}/types": float(len(types)), f"{name}/distinct": len(set(texts)) / len(texts), **counts}


def _of_answers(by_task: Iterable[Sequence[str]]) -> dict[str, float]:
    shares = [len(set(answers)) / len(answers) for given in by_task if (answers := [a for a in given if a])]
    return {"answers/distinct": _mean(shares)} if shares else {}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return float(sum(found)) / len(found)
