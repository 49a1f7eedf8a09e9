"""What a weight push costs: bytes from one process to another per transport and size, and what an engine makes of them.

The sender is this process, as trainer rank 0 is in a run; the receiver is another one (azr/bench/receiving.py). `send`
is from the first byte offered until the receiver tells that it has them all, an allocation and a first push of the size
left out. With the model's own weights the receiver is the engine that is configured, with nothing to decode: `stage` is
receive and checksum, `pause` the time in which it could not have decoded, `load` the part of it in which weights are
copied into the model. What pushes cost under load is told by the part `run`.

Not measured: gathering the weights of a sharded learner, and more receivers than one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter

from azr.bench import receiving
from azr.bench.figures import Reading
from azr.bench.part import Job
from azr.bench.sending import answer, send
from azr.machine import inspect
from azr.model_folder import shape
from azr.wiring import own_address
from common.config import Config

SECTION = "push"
MIB = 1 << 20
SIZES = (16 * MIB, 256 * MIB, 1024 * MIB)
QUICK_SIZES: tuple[int, ...] = ()  # besides the model's
TIMEOUT = 300.0  # seconds, of a collective and of a receiver's answer
_PUSHES = 3  # of each size in a repeat, of which the median counts
_COPIES = 3  # of a buffer on this machine, with some room


def measure(job: Job) -> list[Reading]:
    """PartFailed if a process dies, WeightTransferFailed if a push fails."""
    os.environ.setdefault("OMP_NUM_THREADS", str(job.config.learner.threads))
    found: list[Reading] = []
    own = _own_bytes(job)
    for size in sizes(own, inspect().memory, QUICK_SIZES if job.quick else SIZES):
        for transport in transports(job.config.carrier):
            seconds = _transported(job, size, transport)
            what = f"{transport}, {_named(size)}" + (" (the model's size)" if size == own else "")
            found += [
                Reading(SECTION, f"{what}: send", "ms", 1e3 * seconds),
                Reading(SECTION, f"{what}: rate", "GiB/s", size / (1 << 30) / seconds),
            ]
    return [*found, *_into_engine(job)]


def transports(carrier: str) -> list[str]:
    """Those that bytes travel by: gloo everywhere, to compare with; over ipc none do."""
    return list(dict.fromkeys(("gloo", carrier))) if carrier != "ipc" else ["gloo"]


def sizes(own: int, memory: int, wanted: Sequence[int]) -> list[int]:
    """Bytes of the pushes to make: of the model's own and those `wanted`, what leaves half of the `memory` free."""
    return sorted({size for size in (own, *wanted) if 2 * _COPIES * size <= memory})


def _own_bytes(job: Job) -> int:
    from azr.memory import WIDTHS

    return shape(Path(job.config.model.path)).parameters * WIDTHS[job.config.model.dtype]


def _named(size: int) -> str:
    return f"{size / MIB:,.4g} MiB"


def _transported(job: Job, size: int, transport: str) -> float:
    """Seconds of a push of `size` bytes, the median of several."""
    import torch

    from common.collective import Door

    buffer = torch.zeros(size, dtype=torch.uint8, device=receiving.DEVICES[transport])
    with _receiver(receiving.bytes_only, job) as pipe:
        door = Door(own_address(), 2, TIMEOUT, transport)
        asked = {"host": door.host, "port": door.port, "size": size, "pushes": 1 + _PUSHES, "timeout": TIMEOUT}
        _say(pipe, {**asked, "transport": transport})
        group = door.enter()
        seconds = []
        for _ in range(1 + _PUSHES):
            answer(pipe, TIMEOUT)  # it is ready
            began = perf_counter()
            group.broadcast(buffer)
            answer(pipe, TIMEOUT)
            seconds.append(perf_counter() - began)
        group.close()
    return median(seconds[1:])


def _into_engine(job: Job) -> Iterator[Reading]:
    """Stage, pause and load of the model's own weights."""
    with _receiver(receiving.engine, job) as pipe:
        answer(pipe, TIMEOUT)  # it has started
        told = send(job.config, pipe, 1 + _PUSHES, TIMEOUT)[1:]
        _say(pipe, {})
    what = f"{job.config.carrier}{', delta' * job.config.weights.delta}, into an idle engine"
    for name in ("stage", "pause", "load"):
        yield Reading(SECTION, f"{what}: {name}", "ms", 1e3 * median(found[name] for found in told))
    yield Reading(SECTION, f"{what}: travelled", "%", 100 * median(found["sent"] / found["whole"] for found in told))


@contextmanager
def _receiver(work: Callable[[Config, Connection, Path], None], job: Job) -> Iterator[Connection]:
    """A process that runs `work(config, pipe, log)`, and this end of its pipe."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    log = job.folder / f"{work.__name__}.log"
    process = context.Process(target=work, args=(job.config, theirs, log), daemon=False)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # a receiver that waits for more ends with it
        process.join(TIMEOUT / 10)
        process.kill()
        process.join()


def _say(pipe: Connection, message: dict[str, object]) -> None:
    pipe.send_bytes(json.dumps(message).encode())
