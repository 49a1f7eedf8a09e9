"""One trainer rank of a check, in a process of its own: the real Trainer on batches that nobody sampled.

`python -m azr.experiments.gpu.rank SPEC.json` writes what it found as .npz and JSON. Equal settings of algorithm and
engine give equal batches, whatever the learner's settings are; so runs that differ in those alone compare. Of each
tensor SAMPLES elements are kept, evenly spaced, which is enough to tell a wrong one from a rounded one.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from azr.experiments.gpu import children
from azr.experiments.gpu.claims import Request
from azr.wiring import free_port

if TYPE_CHECKING:
    from torch import Tensor

    from common.config import Config
    from common.types import Share
    from learner.trainer import Trainer

SAMPLES = 4096
PROBES = 4
HOST = "127.0.0.1"
_BEFORE = "before/"  # in names of arrays
Samples = dict[str, np.ndarray[Any, np.dtype[np.float32]]]


@dataclass(frozen=True)
class Found:
    """`metrics` of each step; log-probs of the probe before any; samples of weights `before` and after all, or of the
    gradient of the first batch. `memory`: most bytes that torch had allocated on a GPU, 0 without one; `resident`: on
    the host."""

    metrics: list[dict[str, float]]
    scores: np.ndarray[Any, np.dtype[np.float32]]
    samples: Samples
    before: Samples
    memory: int
    resident: int
    loss: float


def trained(request: Request, name: str, settings: Sequence[str], *, steps: int, seconds: float = 240.0) -> Found:
    """Of rank 0 after `steps` batches on all ranks of `settings`. 0 steps: the loss and gradient of the first batch,
    with nothing applied."""
    from azr.experiments.gpu.settings import PRESET
    from common.config import load

    config = load(PRESET, settings)
    ranks, port = config.learner.ranks, free_port()
    folder = request.work / name
    folder.mkdir(parents=True, exist_ok=True)
    specs = [folder / f"rank-{rank}.json" for rank in range(ranks)]
    for rank, spec in enumerate(specs):
        spec.write_text(json.dumps({"settings": list(settings), "rank": rank, "port": port, "steps": steps}))
    children.perform(
        [[sys.executable, "-m", "azr.experiments.gpu.rank", str(spec)] for spec in specs],
        [spec.with_suffix(".log") for spec in specs],
        {**children.environment(request.device), "OMP_NUM_THREADS": str(config.learner.threads)},
        seconds,
    )
    told = json.loads((folder / "found.json").read_text())
    with np.load(folder / "found.npz") as arrays:
        kept = {key: arrays[key] for key in arrays.files}
    scores = kept.pop("scores")
    before = {name.removeprefix(_BEFORE): kept.pop(name) for name in list(kept) if name.startswith(_BEFORE)}
    return Found(told["metrics"], scores, kept, before, told["memory"], told["resident"], told["loss"])


def difference(one: Mapping[str, Any], other: Mapping[str, Any], origin: Mapping[str, Any] | None = None) -> float:
    """‖one − other‖ / ‖other − origin‖ over all samples together, in float64; `origin` is 0 by default. Infinite if a
    value is not finite."""

    def joined(found: Mapping[str, Any]) -> Any:
        return np.concatenate([found[key].astype(np.float64) for key in sorted(other)])

    size = float(np.linalg.norm(joined(other) - (0.0 if origin is None else joined(origin))))
    gap = float(np.linalg.norm(joined(one) - joined(other))) / max(size, 1e-30)
    return gap if np.isfinite(gap) else float("inf")


def main(spec: Path) -> int:
    asked = json.loads(spec.read_text())
    from azr.experiments.gpu.settings import PRESET
    from common.config import load

    config, rank, steps = load(PRESET, asked["settings"]), asked["rank"], asked["steps"]
    os.environ["OMP_NUM_THREADS"] = str(config.learner.threads)
    import torch

    from learner.trainer import Trainer

    folder = spec.parent
    shares = list(_shares(config, max(1, steps), rank, folder))
    trainer = Trainer(config, rank=rank, world=config.learner.ranks, master=(HOST, asked["port"]), folder=folder)
    scores = trainer.score(_probe(config))
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    before = dict(sampled(trainer.snapshot())) if steps else {}
    metrics = [trainer.step(share) for share in shares[:steps]]
    loss, tensors = (0.0, iter(trainer.snapshot())) if steps else _gradient(trainer, shares[0])
    if rank == 0:
        kept = {_BEFORE + name: values for name, values in before.items()} | dict(sampled(tensors))
        np.savez(folder / "found.npz", scores=np.concatenate(scores), **kept)  # type: ignore[arg-type]
        memory = torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
        resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        told = {"metrics": metrics, "memory": memory, "resident": resident, "loss": loss}
        (folder / "found.json").write_text(json.dumps(told))
    trainer.close()
    return 0


def sampled(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[tuple[str, np.ndarray[Any, np.dtype[np.float32]]]]:
    for name, tensor in tensors:
        flat = tensor.detach().reshape(-1)
        yield name, flat[:: max(1, flat.numel() // SAMPLES)].float().cpu().numpy()


def _gradient(trainer: Trainer, share: Share) -> tuple[float, Iterator[tuple[str, Tensor]]]:
    """The loss of a batch and its gradient by name, at ZeRO stage 0 on one rank."""
    from learner.step_metrics import StepMetrics

    metrics, zero, loss = StepMetrics(), trainer.zero, 0.0
    with zero.accumulation():
        for number, batch in enumerate(share.micro_batches, 1):
            part = trainer.objective(zero, batch, None, metrics, moved=False)
            loss += float(part.detach())
            zero.backward(part, last=number == len(share.micro_batches))
    parameters = zero.policy.model.named_parameters()
    return loss, ((name, parameter.grad) for name, parameter in parameters if parameter.grad is not None)


def _shares(config: Config, steps: int, rank: int, folder: Path) -> Iterator[Share]:
    """Of this rank, with advantages as whitening gives them."""
    from azr import model_folder
    from azr.bench import synthetic
    from learner.preparation import prepared
    from learner.task_book import TaskBook

    vocabulary = model_folder.shape(Path(config.model.path)).vocabulary
    book = TaskBook(folder / f"book-{rank}.sqlite", (), config)
    for step in range(steps):
        groups = synthetic.batch(config, vocabulary, seed=step)
        yield prepared(step, groups, config, book, ())[1][rank]
    book.close()


def _probe(config: Config) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
    from azr import model_folder

    vocabulary = model_folder.shape(Path(config.model.path)).vocabulary
    random = np.random.default_rng(0)
    longest = config.engine.max_model_len - 1
    return [random.integers(3, vocabulary, longest // (1 + i)).astype(np.int32) for i in range(PROBES)]


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
