"""One episode: what a lease becomes. This is the loop of Absolute Zero for a single task.

    propose ─► validate ─► solve n times ─► verify ─► reward both         (a lease to propose)
                           solve m times ─► verify ─► reward              (a lease to solve or evaluate)
    propose ─► validate                                                   (a lease to seed the book)

Invariants: an episode holds at most one scarce thing at a time (an engine slot inside `generate`, an executor credit
inside `validate` and `verify`) and waits for no lease, so episodes cannot deadlock on each other. Nothing of an open
group leaves; a group is complete or it carries its failure. A solve rate is never taken over fewer than n answers.
Answers are judged on sampled tokens only; nothing is tokenised twice.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from actors import rewards
from actors.engine import Completion
from actors.environment import Answer, Draft, Environment, Validated, untagged
from actors.safety import watched
from common.config import Config
from common.jobs import Executor, Verdict
from common.seeds import derive
from common.types import Group, Int32Array, Kind, Lease, Sample, Status, Task, TaskType, propose, solve

INFRA_RETRIES = 2


class Codec(Protocol):
    def encode(self, text: str) -> Int32Array: ...

    def decode(self, tokens: Int32Array) -> str: ...


class Sampler(Protocol):
    """The part of an Engine that an episode needs."""

    async def generate(
        self, prompt: Int32Array, *, n: int, temperature: float, seed: int, max_tokens: int
    ) -> list[Completion]: ...


@dataclass(frozen=True)
class Parts:
    """What an episode works with. `novelty` is what the task book says to a proposal: ok, or why it rejects it."""

    engine: Sampler
    executor: Executor
    environment: Environment
    codec: Codec
    novelty: Callable[[Task], Awaitable[str]]
    config: Config


class _Lost(Exception):
    """The group cannot be completed; `args[0]` says why."""


async def run_episode(lease: Lease, parts: Parts) -> Group:
    """The group of `lease`. Failure of a part shows as `Group.failure`; a dead engine raises PartFailed."""
    group = await _play(lease, parts)
    asked = lease.task.key if lease.task is not None else ""
    group = dataclasses.replace(group, references=tuple(task.key for task in lease.references), asked=asked)
    return watched(group, parts.codec.decode)


async def _play(lease: Lease, parts: Parts) -> Group:
    incarnation = parts.config.run.incarnation
    try:
        if lease.kind.proposes:
            return await _propose(lease, parts)
        assert lease.task is not None
        if lease.kind is Kind.SEED:
            return await _seed(lease, parts, lease.task)
        prompt = parts.codec.encode(parts.environment.solve_prompt(lease.task) + lease.begun)
        samples = await _solve(lease, parts, lease.task, prompt, lease.samples, prompt_index=0)
        return Group(
            lease.id,
            lease.attempt,
            lease.kind,
            incarnation,
            prompts=(prompt,),
            samples=samples,
            solve_rate=float(np.mean([s.correct for s in samples])),
        )
    except _Lost as lost:
        return Group(lease.id, lease.attempt, lease.kind, incarnation, failure=lost.args[0])


async def _propose(lease: Lease, parts: Parts) -> Group:
    task_type = lease.kind.task_type
    prompt, completion, draft = await _draft(lease, parts, task_type)
    if draft is None:
        return _proposal_group(lease, parts, prompt, completion, Status.FORMAT, rewards.NO_FORMAT)
    validated = await _validate(parts, draft)
    task, status = validated.task, validated.status
    if task is not None:
        status = await parts.novelty(task)
    if task is None or status != Status.OK:
        return _proposal_group(lease, parts, prompt, completion, status, parts.config.algorithm.invalid_reward)
    solver_prompt = parts.codec.encode(parts.environment.solve_prompt(task))
    samples = await _solve(lease, parts, task, solver_prompt, lease.samples, prompt_index=1)
    rate = float(np.mean([sample.correct for sample in samples]))
    reward = rewards.proposer(rate, parts.config.algorithm.extreme_reward)
    first = _sample(lease.kind, 0, completion, reward, True, Status.OK, trainable=True)
    return Group(
        lease.id,
        lease.attempt,
        lease.kind,
        parts.config.run.incarnation,
        prompts=(prompt, solver_prompt),
        samples=(first, *samples),
        proposal=task,
        solve_rate=rate,
    )


async def _seed(lease: Lease, parts: Parts, asked: Task) -> Group:
    """`asked` itself, or a task of its type that the model proposes; valid or not, nothing else happens to it.

    No tokens where nobody was asked.
    """
    prompt = np.zeros(0, np.int32)
    completion = Completion(prompt, np.zeros(0, np.float32), (), "stop")
    draft: Draft | None = Draft(
        asked.type, asked.program, asked.inputs, asked.message, composite=asked.composite, shown=asked.shown
    )
    if not asked.inputs:
        prompt, completion, draft = await _draft(lease, parts, asked.type)
    validated = await _validate(parts, draft) if draft is not None else Validated(Status.FORMAT)
    valid = validated.task is not None
    sample = _sample(propose(asked.type), 0, completion, 0.0, valid, validated.status, trainable=False)
    return Group(
        lease.id,
        lease.attempt,
        lease.kind,
        parts.config.run.incarnation,
        prompts=(prompt,),
        samples=(sample,),
        proposal=validated.task,
    )


async def _draft(lease: Lease, parts: Parts, task_type: TaskType) -> tuple[Int32Array, Completion, Draft | None]:
    """A proposal of the model, with its prompt. One cut at the token limit has no format.

    A seed needs none: nobody is paid for it, so what has none, or was cut, is read whole, as the official code does.
    """
    text = parts.environment.propose_prompt(task_type, lease.references, lease.components)
    prompt = parts.codec.encode(text)
    (completion,) = await _generate(lease, parts, prompt, 1, "propose")
    response = parts.codec.decode(completion.tokens)
    readings = [response] if completion.finish == "stop" else []
    if lease.kind is Kind.SEED:
        readings.append(untagged(text, response))
    drafts = (
        parts.environment.parse_proposal(task_type, lease.references, reading, lease.components) for reading in readings
    )
    return prompt, completion, next((draft for draft in drafts if draft is not None), None)


async def _solve(
    lease: Lease, parts: Parts, task: Task, prompt: Int32Array, count: int, prompt_index: int
) -> tuple[Sample, ...]:
    """`count` verified answers to `task`."""
    completions = await _generate(lease, parts, prompt, count, "solve")
    answers = [_read(parts, task, lease.begun, completion) for completion in completions]
    verdicts = await _verify(parts, task, answers)
    trained = parts.config.algorithm.train_mc if lease.kind.proposes else count
    return tuple(
        _sample(
            solve(task.type),
            prompt_index,
            completion,
            rewards.solver(verdict.correct, answer.well_formed),
            verdict.correct,
            verdict.status if answer.well_formed else Status.FORMAT,
            trainable=lease.kind is not Kind.EVAL and index < trained,
        )
        for index, (completion, answer, verdict) in enumerate(zip(completions, answers, verdicts, strict=True))
    )


async def _generate(lease: Lease, parts: Parts, prompt: Int32Array, count: int, phase: str) -> list[Completion]:
    limits = parts.config.engine
    room = limits.max_model_len - len(prompt)
    if room < 1:
        raise _Lost("prompt_too_long")
    completions = await parts.engine.generate(
        prompt,
        n=count,
        temperature=lease.temperature,
        seed=derive(lease.seed, phase),
        max_tokens=min(limits.max_tokens, room),
    )
    if any(completion.finish not in ("stop", "length") for completion in completions):
        raise _Lost("aborted")
    if not all(np.isfinite(completion.logprobs).all() for completion in completions):
        raise _Lost("nonfinite")
    return completions


def _read(parts: Parts, task: Task, begun: str, completion: Completion) -> Answer:
    """An answer cut at the token limit has no format."""
    answer = parts.environment.parse_answer(task, begun + parts.codec.decode(completion.tokens))
    return answer if completion.finish == "stop" else Answer(answer.text, False)


async def _validate(parts: Parts, draft: Draft) -> Validated:
    """A task whose prompt leaves no room for an answer is too big."""
    for _ in range(1 + INFRA_RETRIES):
        validated = await parts.environment.validate(draft, parts.executor)
        if validated.task is not None:
            prompt = parts.codec.encode(parts.environment.solve_prompt(validated.task))
            if len(prompt) >= parts.config.engine.max_model_len:
                return Validated(Status.TOO_BIG, detail=f"{len(prompt)} tokens to ask it")
        if validated.status != Status.INFRA:
            return validated
    raise _Lost(Status.INFRA)


async def _verify(parts: Parts, task: Task, answers: Sequence[Answer]) -> Sequence[Verdict]:
    for _ in range(1 + INFRA_RETRIES):
        verdicts = await parts.environment.verify(task, answers, parts.executor)
        if all(verdict.status != Status.INFRA for verdict in verdicts):
            return verdicts
    raise _Lost(Status.INFRA)


def _proposal_group(
    lease: Lease, parts: Parts, prompt: Int32Array, completion: Completion, status: str, reward: float
) -> Group:
    """A proposal that came to no task."""
    return Group(
        lease.id,
        lease.attempt,
        lease.kind,
        parts.config.run.incarnation,
        prompts=(prompt,),
        samples=(_sample(lease.kind, 0, completion, reward, False, status, trainable=True),),
    )


def _sample(
    stream: Kind,
    prompt: int,
    completion: Completion,
    reward: float,
    correct: bool,
    status: str,
    *,
    trainable: bool,
) -> Sample:
    return Sample(
        stream,
        prompt,
        completion.tokens,
        completion.logprobs,
        completion.spans,
        reward,
        correct,
        status,
        trainable,
    )
