"""TRL's side of `azr experiment peers`: what its worker is given, how it is started, and what came of it.

TRL runs in the environment that scripts/peers makes, in processes of its own (azr/experiments/trl_worker.py).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actors.codec import Codec
from actors.triplets import PythonTriplets
from azr.experiments import child
from azr.experiments.rate import Step
from common.config import Config
from common.errors import ConfigError, PartFailed
from common.types import Task, TaskType

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".cache" / "peers-venv" / "bin" / "python"
WORKER = Path(__file__).with_name("trl_worker.py")
LAUNCH = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")


@dataclass(frozen=True)
class Variant:
    """A way to run it. `rows`: sequences per process and backward pass. `ahead`: steps sampled at a time."""

    threads: int
    rows: int
    ahead: int = 1
    processes: int = 1

    def __str__(self) -> str:
        ahead = f", {self.ahead} steps sampled at once" if self.ahead > 1 else ""
        return f"{self.processes} x {self.threads} threads, {self.rows} rows a pass{ahead}"


@dataclass(frozen=True)
class Work:
    """What both systems do. `rows`: a task each, with `prompt`, its `tokens` and the `answer` that is right."""

    model: str
    rows: tuple[dict[str, Any], ...]
    samples: int  # answers to a task
    sequences: int  # of a step
    max_tokens: int  # of an answer
    lr: float
    betas: tuple[float, float]
    weight_decay: float
    grad_clip: float
    seed: int


def work(config: Config, tasks: Sequence[Task]) -> Work:
    """The work of a run with `config` that only solves, on `tasks`."""
    environment, codec = PythonTriplets(config.environment), Codec(config.model.path)
    rows = []
    for task in tasks:
        prompt = environment.solve_prompt(task)
        rows.append({"prompt": prompt, "tokens": codec.encode(prompt).tolist(), "answer": right(task)})
    algorithm, learner = config.algorithm, config.learner
    return Work(
        model=config.model.path,
        rows=tuple(rows),
        samples=algorithm.solve_samples,
        sequences=len(algorithm.task_types) * algorithm.solves * algorithm.solve_samples,
        max_tokens=config.engine.max_tokens,
        lr=learner.lr,
        betas=learner.betas,
        weight_decay=learner.weight_decay,
        grad_clip=learner.grad_clip,
        seed=config.run.seed,
    )


def right(task: Task) -> str:
    """The answer of the task's author; of abduction and induction others may be right, too."""
    if task.type is TaskType.ABDUCTION:
        return task.inputs[0]
    return task.program if task.type is TaskType.INDUCTION else task.outputs[0]


def variants(sequences: int, samples: int) -> list[Variant]:
    """What is tried for steps of `sequences`: threads, the division of the batch, sampling for two steps at once, and
    two processes of a thread each."""
    rows = [sequences // parts for parts in (1, 2, 4, 8) if not sequences % parts]
    tried = [Variant(1, sequences), *(Variant(2, count) for count in rows), Variant(2, sequences, ahead=2)]
    if not sequences % (2 * samples):
        tried += [Variant(1, sequences // parts, processes=2) for parts in (2, 4) if not sequences % (2 * parts)]
    return tried


def require(python: Path) -> None:
    if not python.exists():
        raise ConfigError(f"there is no environment with TRL at {python.parent.parent}: make it with scripts/peers")


def train(
    work: Work, variants: Sequence[Variant], steps: int, folder: Path, name: str, python: Path = PYTHON
) -> list[list[Step]]:
    """The steps of each variant, all of them on equally many processes; one after the other in the same processes.

    Files and the log go to `folder`. PartFailed if TRL fails.
    """
    require(python)
    (processes,) = {variant.processes for variant in variants}
    folder.mkdir(parents=True, exist_ok=True)
    asked, result, log = (folder / f"{name}{ending}" for ending in (".work.json", ".json", ".log"))
    fields = {**dataclasses.asdict(work), "steps": steps, "variants": [dataclasses.asdict(v) for v in variants]}
    asked.write_text(json.dumps(fields))
    launch = (*LAUNCH, str(processes)) if processes > 1 else ()
    variables = {
        "OMP_NUM_THREADS": str(max(variant.threads for variant in variants)),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONSAFEPATH": "1",  # or the folder of the worker is searched first, and there this very file is named trl
    }
    arguments = [str(python), *launch, str(WORKER), str(asked), str(result)]
    if code := child.run(arguments, log, variables):
        raise PartFailed("TRL", f"ended with exit code {code}: {child.last_line(log)}", log=str(log))
    return [
        [Step(end, found["sequences"], found["sequences"] * found["tokens"]) for end in found["ends"]]
        for found in json.loads(result.read_text())
    ]
