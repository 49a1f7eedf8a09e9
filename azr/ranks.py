"""Trainer ranks as processes of this machine, without Ray: those of a replay, and those that `azr bench` measures.

Nothing but figures passes between processes, as JSON. A rank that fails takes the others with it, and so does the end
of `trained`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path

from azr.environment import alone_on, environment
from azr.footprint import on_gpus
from azr.log_file import redirect
from azr.replay_plan import Figures
from azr.wiring import free_port
from common.config import Config
from common.errors import AzrError, PartFailed

# Of one rank, which is told where all ranks meet: (step, figures of the whole batch) of each step. It crosses to a
# process of its own, and imports torch there.
Work = Callable[[tuple[str, int]], Iterator[tuple[int, Figures]]]

HOST = "127.0.0.1"
SHOWN = 600  # characters of the log of a rank that died


def trained(config: Config, works: Sequence[Work], folder: Path) -> Iterator[tuple[int, Figures]]:
    """What rank 0 yields, while each rank does one of `works`; `folder` takes their logs. PartFailed if one fails."""
    context = multiprocessing.get_context("spawn")
    master = HOST, free_port()
    pipes = [context.Pipe(duplex=False) for _ in works]
    ranks = [
        context.Process(target=_rank, args=(config, rank, work, master, folder, sender), daemon=True)
        for rank, (work, (_, sender)) in enumerate(zip(works, pipes, strict=True))
    ]
    for rank, (_, sender) in zip(ranks, pipes, strict=True):
        rank.start()
        sender.close()  # a rank that ends is then the end of its pipe
    try:
        yield from received({receiver: rank for rank, (receiver, _) in enumerate(pipes)}, folder)
    finally:
        for rank in ranks:
            rank.kill()
            rank.join()


def received(receivers: dict[Connection, int], folder: Path) -> Iterator[tuple[int, Figures]]:
    """What ranks send until all are done. PartFailed if one tells of a failure, or ends without a word."""
    while receivers:
        for ready in connection.wait(list(receivers)):
            assert isinstance(ready, Connection)
            rank = receivers[ready]
            try:
                message = json.loads(ready.recv_bytes())
            except EOFError:
                raise PartFailed(
                    f"trainer rank {rank}", f"its process died; it said\n{_end(_log(folder, rank))}"
                ) from None
            match message:
                case {"step": step, "figures": figures}:
                    yield step, figures
                case {"failed": what, "hint": hint}:
                    raise PartFailed(f"trainer rank {rank}", what, hint=hint)
                case {"done": _}:
                    del receivers[ready]


def _rank(config: Config, rank: int, work: Work, master: tuple[str, int], folder: Path, pipe: Connection) -> None:
    redirect(_log(folder, rank))
    os.environ["OMP_NUM_THREADS"] = str(config.learner.threads)
    gpus = on_gpus(config)
    try:
        os.environ.update(environment("trainer", gpus=gpus))
        if gpus:
            os.environ.update(alone_on(rank, os.environ.get("CUDA_VISIBLE_DEVICES")))
        for step, figures in work(master):
            if rank == 0:
                _send(pipe, step=step, figures=figures)
    except PartFailed as error:
        _send(pipe, failed=error.what, hint=error.hint)
    except AzrError as error:
        _send(pipe, failed=str(error), hint="")
    else:
        _send(pipe, done=True)


def _send(pipe: Connection, **message: object) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _log(folder: Path, rank: int) -> Path:
    return folder / f"trainer-{rank}.log"


def _end(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-SHOWN:] if log.exists() else "nothing"
