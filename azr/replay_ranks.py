"""The trainer ranks of a replay: one process each, on this machine, without Ray.

Every rank reads the journal, settles every batch in a copy of the book of its own and trains its share; nothing but
figures passes between processes, as JSON. Ranks that fail take the others with them, and so does the end of `trained`.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path

from azr.environment import alone_on, environment
from azr.footprint import on_gpus
from azr.log_file import redirect
from azr.replay_plan import Figures, Plan
from azr.wiring import free_port
from common.errors import AzrError, PartFailed

HOST = "127.0.0.1"
SHOWN = 600  # characters of the log of a rank that died
BOOK = "tasks.sqlite"


def trained(plan: Plan, folder: Path) -> Iterator[tuple[int, Figures]]:
    """(step, figures of the whole batch) of each step, as it is trained. `folder` takes the files of the ranks.

    PartFailed if a rank fails.
    """
    context = multiprocessing.get_context("spawn")
    master = HOST, free_port()
    pipes = [context.Pipe(duplex=False) for _ in range(plan.config.learner.ranks)]
    ranks = [
        context.Process(target=_rank, args=(plan, rank, master, folder, sender), daemon=True)
        for rank, (_, sender) in enumerate(pipes)
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


def _rank(plan: Plan, rank: int, master: tuple[str, int], folder: Path, pipe: Connection) -> None:
    redirect(_log(folder, rank))
    os.environ["OMP_NUM_THREADS"] = str(plan.config.learner.threads)
    own = folder / f"rank-{rank}"
    own.mkdir()
    for path in plan.folder.glob(f"{BOOK}*"):
        if not path.name.endswith("-shm"):  # an index of the write-ahead log, which SQLite makes anew
            shutil.copyfile(path, own / path.name)
    gpus = on_gpus(plan.config)
    try:
        os.environ.update(environment("trainer", gpus=gpus))
        if gpus:
            os.environ.update(alone_on(rank, os.environ.get("CUDA_VISIBLE_DEVICES")))
        for step, figures in _steps(plan, rank, master, own):
            if rank == 0:
                _send(pipe, step=step, figures=figures)
    except PartFailed as error:
        _send(pipe, failed=error.what, hint=error.hint)
    except AzrError as error:
        _send(pipe, failed=str(error), hint="")
    else:
        _send(pipe, done=True)


def _steps(plan: Plan, rank: int, master: tuple[str, int], own: Path) -> Iterator[tuple[int, dict[str, float]]]:
    from learner.evaluation import held_out_programs
    from learner.history import History
    from learner.intrinsic import Programs, measures
    from learner.replay import replay
    from learner.task_book import TaskBook
    from learner.trainer import Trainer

    config = plan.config
    programs: Programs | None = None
    if measures(config.intrinsic):
        from learner import program as programs
    batches = History(plan.folder / "journal")
    book = TaskBook(own / BOOK, (), config, held_out_programs(Path(config.model.path)))
    world = config.learner.ranks
    start = plan.start.absolute() if plan.start else None
    trainer = Trainer(config, rank=rank, world=world, master=master, folder=own, start=start)
    yield from replay(config, plan.steps, batches, book, trainer.step, rank=rank, programs=programs)
    trainer.close()
    book.close()


def _send(pipe: Connection, **message: object) -> None:
    pipe.send_bytes(json.dumps(message).encode())


def _log(folder: Path, rank: int) -> Path:
    return folder / f"trainer-{rank}.log"


def _end(log: Path) -> str:
    return log.read_text(errors="replace").strip()[-SHOWN:] if log.exists() else "nothing"
