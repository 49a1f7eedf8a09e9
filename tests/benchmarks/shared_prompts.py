"""CPU time of forward and backward passes over a batch of short answers, each prompt once per answer and once per row.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.shared_prompts MODEL... [--repeats 7]

24 prompts of 14 to 21 tokens with 8 answers each; of three prompts one has answers of 5 tokens, one of 4 and one of 6
to 38, about what the tiny base gives to deduction, abduction and induction. Tokens are random: that changes no cost.
Time of the processor, since other work on the machine adds to that of the wall; the median of the repeats, by turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from common.types import STREAMS, MicroBatch, Sample, Span
from learner.batch import TrainSequence, shares
from learner.policy import answer_scores, load_policy

WAYS = [(tokens, share) for tokens in (4096, 2048, 1024, 512) for share in (False, True)]


def batch(rng: np.random.Generator) -> list[TrainSequence]:
    rows: list[TrainSequence] = []
    for group in range(24):
        prompt = rng.integers(3, 490, rng.integers(14, 22)).astype(np.int32)
        for _ in range(8):
            length = (5, 4, int(rng.choice([6, 10, 16, 24, 38], p=[0.1, 0.3, 0.3, 0.2, 0.1])))[group % 3]
            tokens = rng.integers(3, 490, length).astype(np.int32)
            spans = (Span(0, 0, length),)
            logprobs = np.zeros(length, np.float32)
            sample = Sample(STREAMS[0], 0, tokens, logprobs, spans, 0.0, True, "ok", True)
            rows.append(TrainSequence(prompt, sample, 1.0, 1.0, 0))
    return rows


def measure(model: Path, repeats: int) -> None:
    torch.set_num_threads(1)
    policy, rows = load_policy(model), batch(np.random.default_rng(0))

    def pass_over(micros: tuple[MicroBatch, ...]) -> Callable[[], None]:
        def run() -> None:
            for micro in micros:
                loss = answer_scores(policy, micro).logprobs.sum()
                torch.autograd.backward(loss)

        return run

    runs = {
        (tokens, share): pass_over(shares(0, rows, 1, tokens, share_prompts=share)[0].micro_batches)
        for tokens, share in WAYS
    }
    seconds: dict[tuple[int, bool], list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats + 1):
        for way, run in runs.items():
            began = time.process_time()
            run()
            seconds[way].append(time.process_time() - began)
    print(f"{model}: {len(rows)} sequences\nmicro_batch_tokens  share_prompts  CPU ms")
    for (tokens, share), found in seconds.items():
        print(f"{tokens:>18}  {share!s:>13}  {1e3 * median(found[1:]):>6.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--repeats", type=int, default=7)
    parsed = parser.parse_args()
    for model in parsed.models:
        measure(model, parsed.repeats)


if __name__ == "__main__":
    main()
