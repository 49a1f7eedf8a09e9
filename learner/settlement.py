"""Settlement: which proposals of a batch are copies, what they are paid, and whether they are trained. It is decided
once, when the batch is formed.

Whoever proposes asks the book first, but two that are under way at the same time do not see each other. So a batch is
settled in lease order against everything that comes before it: the book, the batches that have been formed and are on
their way into it, and the earlier leases of the batch itself. That does not depend on when versions changed; a batch
that is replayed after a crash is settled as it was before, and settling it again changes nothing.

A copy is paid like an invalid proposal and enters no book. The answers to it stay as they are: they are honest answers.
Intrinsic terms are added to what a learnable proposal is paid, which follows from its solve rate, so that a settled
proposal is not paid twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from common.config import Config, IntrinsicConfig
from common.types import Group, Sample, Status, Task
from learner import intrinsic
from learner.task_book import TaskBook


def settle(
    step: int,
    batch: Sequence[Group],
    config: Config,
    book: TaskBook,
    ahead: Iterable[Sequence[Group]],
    programs: intrinsic.Programs | None = None,
) -> list[Group]:
    """The batch of `step`, in its order; `ahead` are the settled batches before it that are not yet in `book`.

    `programs`: what measures them, needed where intrinsic.measures(config.intrinsic).
    """
    proposing = config.algorithm.train_propose and step >= config.algorithm.warmup
    entering = book.entering(ahead)
    before = {_name(book, task) for task in entering.values()}
    names: set[str] = set()
    settled: list[Group] = []
    for group in batch:
        task = group.proposal
        if task is not None and config.environment.novelty != "off":
            name = _name(book, task)
            if name in names:
                group = _rejected(group, Status.COPY, config.algorithm.invalid_reward)
            elif name in before or book.status(task.type, task.key, task.program_key) == Status.KNOWN:
                group = _rejected(group, Status.KNOWN, config.algorithm.invalid_reward)
            names.add(name)
        settled.append(group if proposing or not group.kind.proposes else _proposal_as(group, trainable=False))
    if not intrinsic.pays(config.intrinsic):
        return settled
    return _paid(settled, config.intrinsic, book, entering, programs)


def _paid(
    batch: Sequence[Group],
    config: IntrinsicConfig,
    book: TaskBook,
    entering: Mapping[str, Task],
    programs: intrinsic.Programs | None,
) -> list[Group]:
    """Learnable proposals with their intrinsic terms. What a proposer was shown is in the book, or on its way into it
    where the batches before are trained again."""
    seen = intrinsic.fold(entering.values(), book.seen) if intrinsic.counts(config) else book.seen
    paid: list[Group] = []
    for group in batch:
        task, rate = group.proposal, group.solve_rate
        if task is not None and rate is not None and 0.0 < rate < 1.0:
            shown = [t for key in group.references if (t := entering.get(key) or book.find(key)) is not None]
            found = intrinsic.terms(task, shown, seen[task.type], config, programs)
            group = _proposal_as(group, reward=intrinsic.combined(1.0 - rate, found, config.combine))
        paid.append(group)
    return paid


def rebuild(
    book: TaskBook,
    step: int,
    batches: Mapping[int, Sequence[Group]],
    config: Config,
    programs: intrinsic.Programs | None = None,
) -> None:
    """The book as of `step` batches, whatever it held before.

    A batch enters the book with its version, which a checkpoint may outrun; the journal has it in `batches` until then.
    """
    first = step
    while first - 1 in batches:
        first -= 1
    book.rewind(first)
    for number in range(first, step):
        book.add_batch(number + 1, settle(number, batches[number], config, book, (), programs))


def _name(book: TaskBook, task: Task) -> str:
    return book.name(task.type, task.key, task.program_key)


def _rejected(group: Group, status: Status, reward: float) -> Group:
    group = _proposal_as(group, status=status, reward=reward, correct=False)
    return dataclasses.replace(group, proposal=None)


def _proposal_as(group: Group, **changes: object) -> Group:
    """`group` with the sample that proposes changed; the answers to it are of another stream."""

    def changed(sample: Sample) -> Sample:
        return dataclasses.replace(sample, **changes) if sample.stream is group.kind else sample  # type: ignore[arg-type]

    return dataclasses.replace(group, samples=tuple(changed(sample) for sample in group.samples))
