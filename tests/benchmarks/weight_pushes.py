"""What travels in a push, and what it costs on CPU: whole or as a delta, with which checksum.

    python -m tests.benchmarks.weight_pushes [--parameters 64000000] [--rounds 5] [--threads 1]

First the share of bfloat16 weights that one AdamW step changes, at the learning rates of the published runs and of the
tiny preset: a Qwen2 of random weights (standard deviation 0.02) held in float32 and trained on random tokens; median
over the steps after the first five. Then, for a buffer of so many bfloat16 numbers of which such shares change, medians
of seconds with the smallest and the largest: checksum, blake2b for comparison, encoding, patching, and gloo broadcasts
of both to another process over loopback.
"""

from __future__ import annotations

import argparse
import hashlib
import multiprocessing
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from statistics import median

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from common.checksum import checksum
from common.collective import Door, Group
from common.delta import encode, patch

HOST, TIMEOUT = "127.0.0.1", 120.0
RATES = (1e-6, 5e-4)
STEPS, WARM = 15, 5


def shares(rate: float) -> list[float]:
    """Of bfloat16 weights that each step after the first few changes."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=512, hidden_size=256, intermediate_size=1024, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=True,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, betas=(0.9, 0.999), weight_decay=0.01)
    found = []
    for step in range(STEPS):
        before = [p.detach().bfloat16() for p in model.parameters()]
        tokens = torch.randint(0, config.vocab_size, (8, 64))
        model(input_ids=tokens, labels=tokens).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        after = [p.detach().bfloat16() for p in model.parameters()]
        changed = sum(int((a != b).sum()) for a, b in zip(before, after, strict=True))
        if step >= WARM:
            found.append(changed / sum(a.numel() for a in after))
    return found


def receive(pipe: Connection, port: int, sizes: list[int]) -> None:
    group = Group.create(HOST, port, 1, 2, TIMEOUT)
    for size in sizes:
        buffer = torch.empty(size, dtype=torch.uint8)
        group.broadcast(buffer)
        pipe.send(None)


def timed(work: Callable[[], object], rounds: int) -> list[float]:
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return seconds


def told(what: str, seconds: list[float], size: int) -> None:
    middle = median(seconds)
    print(
        f"{what:<34}{size / 1e6:>9.1f} MB {middle:>8.3f} s ({min(seconds):.3f}-{max(seconds):.3f}) "
        f"{size / middle / 1e9:>6.2f} GB/s"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parameters", type=int, default=64_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    changed = {}
    for rate in RATES:
        found = shares(rate)
        changed[rate] = median(found)
        print(f"learning rate {rate:g}: {changed[rate]:.2%} of the weights change in a step "
              f"({min(found):.2%}-{max(found):.2%})")  # fmt: skip
    base = (0.02 * torch.randn(given.parameters)).bfloat16()
    whole = base.view(torch.uint8)
    told("checksum", timed(partial(checksum, whole), given.rounds), len(whole))
    told("blake2b", timed(lambda: hashlib.blake2b(whole.numpy().data).digest(), given.rounds), len(whole))
    sent = {"gloo, whole": whole}
    for rate, share in changed.items():
        new = torch.where(torch.rand(given.parameters) < share, base * 1.01 + 1e-4, base).view(torch.uint8)
        made = encode(whole, new, 2)
        told(f"encode, learning rate {rate:g}", timed(partial(encode, whole, new, 2), given.rounds), len(whole))
        if made is None:
            print(f"learning rate {rate:g}: a delta is not smaller")
            continue
        entries, delta = made
        print(f"learning rate {rate:g}: a delta of {len(delta) / len(whole):.2%} of the bytes")
        target = whole.clone()
        told(
            f"patch, learning rate {rate:g}",
            timed(partial(patch, target, entries, delta, 2), given.rounds),
            len(delta),
        )
        sent[f"gloo, delta, learning rate {rate:g}"] = delta
    broadcast(sent, given.rounds)


def broadcast(sent: dict[str, torch.Tensor], rounds: int) -> None:
    door = Door(HOST, 2, TIMEOUT)
    ours, theirs = multiprocessing.Pipe()
    sizes = [len(buffer) for buffer in sent.values() for _ in range(rounds)]
    process = multiprocessing.get_context("spawn").Process(target=receive, args=(theirs, door.port, sizes))
    process.start()
    group = door.enter()

    def once(buffer: torch.Tensor) -> None:
        group.broadcast(buffer)
        ours.recv()

    for what, buffer in sent.items():
        told(what, timed(partial(once, buffer), rounds), len(buffer))
    process.join()


if __name__ == "__main__":
    main()
