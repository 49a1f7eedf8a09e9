"""A batch of groups that nobody sampled: as many sequences as a batch of a run has, of lengths as they come in runs.

With prompts up to P = engine.max_model_len − engine.max_tokens and answers up to A = engine.max_tokens tokens: prompts
are uniform in [P/2, P], since those of one environment differ little; answers are log-normal with median A/3 and σ 0.8,
cut at A, where about one in twelve ends. Tokens are drawn uniformly and their log-probs are those of a uniform policy,
so the figures of the loss mean nothing; what a step costs does not depend on them. Equal seeds give equal batches.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from common.config import Config
from common.seeds import derive
from common.types import Group, Int32Array, Sample, Span, Status, TaskType, solve

_MEDIAN, _SIGMA = 1 / 3, 0.8


def batch(config: Config, vocabulary: int, seed: int) -> list[Group]:
    """Groups of one learner step, in lease order; all are answers, and answers to one task share a prompt."""
    random = np.random.default_rng(derive(seed, "bench"))
    return [
        _group(lease, task_type, count, config, vocabulary, random)
        for lease, (task_type, count) in enumerate(_groups(config))
    ]


def _groups(config: Config) -> Iterator[tuple[TaskType, int]]:
    """Task type and trained sequences with one prompt: of each proposal, of the answers that measure it, of the
    answers to a task of the book."""
    algorithm = config.algorithm
    for task_type in algorithm.task_types:
        for _ in range(algorithm.proposals):
            yield task_type, 1
            if algorithm.train_mc:
                yield task_type, algorithm.train_mc
        for _ in range(algorithm.solves):
            yield task_type, algorithm.solve_samples


def _group(
    lease: int, task_type: TaskType, count: int, config: Config, vocabulary: int, random: np.random.Generator
) -> Group:
    longest = config.engine.max_model_len - config.engine.max_tokens
    prompt = _tokens(random, vocabulary, int(random.integers(max(1, longest // 2), max(1, longest), endpoint=True)))
    samples = []
    for number in range(count):
        length = _answer_length(random, config.engine.max_tokens)
        samples.append(
            Sample(
                solve(task_type),
                prompt=0,
                tokens=_tokens(random, vocabulary, length),
                logprobs=np.full(length, -math.log(vocabulary), np.float32),
                spans=(Span(0, 0, length),),
                reward=1.0 if number % 2 else -0.5,
                correct=bool(number % 2),
                status=Status.OK,
            )
        )
    return Group(lease, 0, solve(task_type), config.run.incarnation, (prompt,), tuple(samples))


def _answer_length(random: np.random.Generator, most: int) -> int:
    return int(np.clip(random.lognormal(math.log(max(1.0, _MEDIAN * most)), _SIGMA), 1, most))


def _tokens(random: np.random.Generator, vocabulary: int, length: int) -> Int32Array:
    return random.integers(0, vocabulary, length).astype(np.int32)
