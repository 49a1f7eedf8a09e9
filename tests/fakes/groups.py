"""Tasks, samples and groups as an actor would send them, made from as little as a test cares about."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from common.types import Group, Kind, Lease, Sample, Span, Task, TaskType, propose, solve


def a_task(name: str, task_type: TaskType = TaskType.DEDUCTION, *, program: str = "") -> Task:
    """One pair, or for induction two, of which the first is shown. `program`: its key, if there is one."""
    pairs = 2 if task_type is TaskType.INDUCTION else 1
    return Task(
        task_type,
        f"def f(x):\n    return {name!r}",
        ("1", "2")[:pairs],
        (f"{name!r}",) * pairs,
        key=f"{task_type}:{name}",
        shown=pairs - 1,
        program_key=program,
    )


def a_sample(
    stream: Kind,
    *,
    version: int = 0,
    length: int = 3,
    reward: float = 0.0,
    correct: bool = False,
    prompt: int = 0,
    spans: Sequence[Span] = (),
    trainable: bool = True,
    status: str = "ok",
) -> Sample:
    """`length` tokens 0, 1, … sampled by `version`, unless `spans` say more."""
    return Sample(
        stream,
        prompt,
        np.arange(length, dtype=np.int32),
        np.full(length, -1.0, dtype=np.float32),
        tuple(spans) or (Span(version, 0, length),),
        reward,
        correct,
        status,
        trainable,
    )


def a_group(
    lease: int,
    kind: Kind,
    samples: Sequence[Sample] = (),
    *,
    attempt: int = 0,
    incarnation: int = 0,
    proposal: Task | None = None,
    solve_rate: float | None = None,
    failure: str = "",
) -> Group:
    """Prompts of 2 tokens: one of its own, and one for the answers to its proposal."""
    prompts = (np.array([7, 8], dtype=np.int32), np.array([9, 9], dtype=np.int32))
    return Group(lease, attempt, kind, incarnation, prompts, tuple(samples), proposal, solve_rate, failure)


def fulfil(lease: Lease, *, version: int | None = None, incarnation: int = 0, failure: str = "") -> Group:
    """What a lease yields: a valid proposal named after it with right and wrong answers, or answers to its task.

    Everything is sampled by `version`, by default that of the grant.
    """
    at = lease.version if version is None else version
    if failure:
        return a_group(lease.id, lease.kind, attempt=lease.attempt, incarnation=incarnation, failure=failure)
    if lease.kind is Kind.SEED:
        return seeded(lease, incarnation=incarnation)
    proposal = a_task(f"of {lease.id}", lease.kind.task_type) if lease.kind.proposes else None
    asked = proposal or lease.task
    assert asked is not None
    samples = [
        a_sample(
            solve(asked.type),
            version=at,
            length=2 + i,
            reward=1.0 if i % 2 else -0.5,
            correct=bool(i % 2),
            prompt=int(lease.kind.proposes),
            trainable=lease.kind is not Kind.EVAL,
        )
        for i in range(lease.samples)
    ]
    rate = float(np.mean([s.correct for s in samples]))
    if proposal is not None:
        samples.insert(0, a_sample(lease.kind, version=at, reward=(lease.id % 3) / 2, correct=True))
    group = a_group(
        lease.id,
        lease.kind,
        samples,
        attempt=lease.attempt,
        incarnation=incarnation,
        proposal=proposal,
        solve_rate=rate,
    )
    given = lease.task.key if lease.task is not None else ""
    return dataclasses.replace(group, references=tuple(task.key for task in lease.references), asked=given)


def seeded(lease: Lease, *, status: str = "ok", name: str = "", incarnation: int = 0) -> Group:
    """What a seed lease yields: a task called `name`, by default after the text it was given or its seed."""
    asked = lease.task
    assert asked is not None
    proposal = a_task(name or asked.program or f"seed {lease.seed}", asked.type) if status == "ok" else None
    sample = a_sample(propose(asked.type), trainable=False, correct=status == "ok", status=status)
    return a_group(lease.id, lease.kind, [sample], attempt=lease.attempt, incarnation=incarnation, proposal=proposal)
