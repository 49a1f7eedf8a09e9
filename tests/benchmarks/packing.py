"""CPU time of forward and backward passes over a batch, in padded rows and packed, and what of the rows is padding.

    OMP_NUM_THREADS=1 python -m tests.benchmarks.packing MODEL [--tokens 1024] [--repeats 15] [--compile]

192 sequences, prompts of 14 to 21 tokens and answers of which half are up to 8 tokens long and one in twenty 60 and
more (lognormal). Tokens are random: that changes no cost. Time of the processor, since other work on the machine adds
to that of the wall; ways take turns, and the ratio is that of one turn: median, and in brackets the middle half.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import quantiles

import numpy as np
import torch

from common.types import STREAMS, Sample, Span
from learner.batch import TrainSequence, shares
from learner.objective import filled
from learner.policy import load_policy, rows_of, scored


def batch(rng: np.random.Generator) -> list[TrainSequence]:
    def one() -> TrainSequence:
        prompt = rng.integers(3, 490, rng.integers(14, 22)).astype(np.int32)
        length = int(np.clip(rng.lognormal(2.1, 1.25), 1, 200))
        tokens = rng.integers(3, 490, length).astype(np.int32)
        sample = Sample(
            STREAMS[0], 0, tokens, np.zeros(length, np.float32), (Span(0, 0, length),), 0.0, True, "ok", True
        )
        return TrainSequence(prompt, sample, 1.0, 1.0, 0)

    return [one() for _ in range(192)]


def way(model: Path, rows: list[TrainSequence], tokens: int, *, packing: bool, compiled: bool) -> Callable[[], None]:
    """What passes over the batch; says how much of it is padding."""
    policy = load_policy(model, packing=packing, compiled=compiled)
    (share,) = shares(0, rows, 1, tokens, packing=packing)
    laid = [rows_of(micro, packing=packing) for micro in share.micro_batches]
    positions = sum(row.input_ids.size for row in laid)
    held = sum(filled(micro, packing=packing) for micro in share.micro_batches)
    print(f"{name(packing, compiled)}: {len(laid)} micro-batches, padding {100 * (1 - held / positions):.1f} %")

    def run() -> None:
        for row in laid:
            torch.autograd.backward(scored(policy, row, None).logprobs.sum())

    return run


def name(packing: bool, compiled: bool) -> str:
    return ("packed" if packing else "padded") + " compiled" * compiled


def measure(model: Path, tokens: int, repeats: int, compiled: bool) -> None:
    torch.set_num_threads(1)
    rows = batch(np.random.default_rng(0))
    ways = [(packing, fast) for fast in {False, compiled} for packing in (False, True)]
    runs = {(packing, fast): way(model, rows, tokens, packing=packing, compiled=fast) for packing, fast in sorted(ways)}
    seconds: dict[tuple[bool, bool], list[float]] = {key: [] for key in runs}
    for _ in range(repeats + 1):
        for key, run in runs.items():
            began = time.process_time()
            run()
            seconds[key].append(time.process_time() - began)
    print("                  CPU ms           padded takes so many times")
    for key, found in seconds.items():
        ratios = [one / other for one, other in zip(seconds[False, False][1:], found[1:], strict=True)]
        (low, mid, high), (least, usual, most) = (quantiles(of, n=4) for of in (found[1:], ratios))
        print(f"{name(*key):<16}  {1e3 * mid:.0f} ({1e3 * low:.0f}-{1e3 * high:.0f})", end="  ")
        print(f"{usual:.2f} ({least:.2f}-{most:.2f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="MODEL")
    parser.add_argument("--tokens", type=int, default=1024, help="of a micro-batch")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="both ways compiled, too")
    parsed = parser.parse_args()
    measure(parsed.model, parsed.tokens, parsed.repeats, parsed.compile)


if __name__ == "__main__":
    main()
