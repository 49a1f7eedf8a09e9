"""What the intake tells of itself, gathered from its parts: the row of a step, what a run ends with, what is watched.

Derived and for people; training never reads it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from common.config import Config
from common.messages import StepDone
from common.types import Group
from learner.admission import Admission
from learner.batch import sequences
from learner.evaluation import Evaluation
from learner.run_log import batch_metrics
from learner.safety_log import SafetyLog
from learner.seeding import Seeding
from learner.task_age import task_ages
from learner.task_book import TaskBook
from learner.weight_sync import PushRecord, WeightSync


def step_row(
    done: StepDone,
    batch: Sequence[Group],
    config: Config,
    admission: Admission,
    book: TaskBook,
    pushes: Sequence[PushRecord],
    flags: Mapping[str, int],
) -> dict[str, float]:
    """The row of metrics.jsonl for the batch that has been trained. `flags`: matches of safety rules so far."""
    trained = sequences(done.step, batch, config.algorithm, config.run.seed)
    row = {
        "step": done.step,
        "incarnation": config.run.incarnation,
        "time": time.time(),
        "seconds": done.seconds,
        **batch_metrics(done.step, batch, trained.rows),
        **task_ages(done.step, batch, book.entered),
        **{f"learner/{k}": v for k, v in done.metrics.items()},
        "silent_streams": len(trained.silent_streams),
        "silent_tasks": trained.silent_tasks,
        "version": admission.version,
        "open": sum(admission.open.values()),
        "waiting": sum(admission.waiting.values()),
        **{f"book/{t}": n for t, n in book.sizes.items()},
        **{f"admission/{k}": n for k, n in admission.counts.items()},
        "nonfinite": admission.counts["ended/nonfinite"],
        "safety/flags": sum(flags.values()),
        **{f"safety/{rule}": n for rule, n in flags.items()},
    }
    if pushes:
        push = pushes[-1]
        row["push/stage"] = push.stage
        row["push/bytes"] = push.sent
        row["push/share"] = push.sent / push.whole if push.whole else 1.0
        row["push/pause"] = max(push.pauses, default=0.0)
        row["push/load"] = max(push.loads, default=0.0)
        row["push/probe_difference"] = push.probe_difference
    return row


def rollout_row(step: int, batch: Sequence[Group], config: Config, *, seconds: float) -> dict[str, float]:
    """The row of metrics.jsonl for a batch that is discarded; `seconds` since the one before. All was sampled by
    version 0, which is not stale, and every sample counts as a sequence."""
    return {
        "step": step,
        "incarnation": config.run.incarnation,
        "time": time.time(),
        "seconds": seconds,
        **batch_metrics(0, batch, ()),
        "sequences": sum(len(group.samples) for group in batch),
    }


def of_now(
    admission: Admission, weights: WeightSync, evaluation: Evaluation, seeding: Seeding, safety: SafetyLog
) -> dict[str, Any]:
    """What is watched while a run goes on."""
    return {
        "version": weights.version,
        "batched": admission.batched,
        "open": {k.value: n for k, n in admission.open.items()},
        "waiting": {k.value: n for k, n in admission.waiting.items()},
        "evaluating": evaluation.active,
        "flags": safety.told,
        "seeding": seeding.progress() if seeding.active else {},
        "evaluation": [{"version": r.version, **r.accuracies()} for r in evaluation.rounds],
    }


def of_pushes(pushes: Sequence[PushRecord]) -> dict[str, Any]:
    """Of all weight pushes of a run; with checksums, if engines report them, of the last version in each engine."""
    figures: dict[str, Any] = {"pauses": [p for record in pushes for p in record.pauses], "pushes": len(pushes)}
    last = pushes[-1].version if pushes else None
    checksums = {f"actor-{i}": c for p in pushes if p.version == last for i, c in p.checksums.items()}
    if checksums:  # a late joiner has a push of its own
        figures["checksums"] = {"version": last, "actors": checksums}
    return figures


def of_book(book: TaskBook) -> dict[str, Any]:
    """Tasks that can be drawn, and what became of the seeds."""
    return {
        "tasks": {t.value: n for t, n in book.sizes.items()},
        "seeds": {t.value: dict(counts) for t, counts in book.seed_counts().items()},
    }
