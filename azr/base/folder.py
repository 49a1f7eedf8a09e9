"""The folder of the base model, published whole: written under a temporary name beside it, then renamed.

config.json  generation_config.json  model.safetensors     what Hugging Face and vLLM load
tokenizer.json  tokenizer_config.json                       see `azr.base.tokenizer`
heldout.jsonl  heldout_harder.jsonl                         see `azr.base.heldout`
base.json                                                   recipe, loss curve, cost, measured accuracies
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from azr.base import heldout, tokenizer
from azr.base.accuracy import Accuracy
from azr.base.pretrain import Recipe, Trained, pretrain
from common.types import Task, TaskType

_MEASURED = 200  # tasks per type
_WORTH_MEASURING = 1000  # steps


def publish(path: Path, *, steps: int, seed: int, log: Callable[[str], None]) -> None:
    """Raises FileExistsError if `path` exists. An interrupted build leaves nothing at `path`."""
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it to make the base model again")
    recipe = Recipe(steps=steps, seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent, ignore_cleanup_errors=True) as name:
        folder = Path(name) / path.name
        folder.mkdir()
        log(f"base model: making {path}, {steps} steps on one core")
        _write(folder, recipe, log)
        folder.rename(path)
    log(f"base model: {path} is ready")


def _write(folder: Path, recipe: Recipe, log: Callable[[str], None]) -> None:
    tokens = tokenizer.train()
    tokenizer.save(tokens, folder)
    trained = pretrain(recipe, tokens, log)
    _save_model(trained.model, folder)
    tasks = heldout.standard(recipe.seed)
    heldout.write(folder / heldout.STANDARD, tasks)
    heldout.write(folder / heldout.HARDER, heldout.harder(recipe.seed))
    accuracy = _measure(trained, folder, tasks, log) if recipe.steps >= _WORTH_MEASURING else {}
    (folder / "base.json").write_text(
        json.dumps(
            {
                "recipe": dataclasses.asdict(recipe),
                "losses": [round(loss, 4) for loss in trained.losses],
                "examples": trained.examples,
                "tokens": trained.tokens,
                "cpu_seconds": round(trained.seconds, 1),
                "accuracy": accuracy,
            },
            indent=1,
        ),
        encoding="utf-8",
    )


def _save_model(model: Any, folder: Path) -> None:
    """As `save_pretrained` writes it, tied weights once, without its progress bar."""
    tensors = {name: tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)


def _measure(
    trained: Trained, folder: Path, tasks: tuple[Task, ...], log: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    accuracy = Accuracy(trained.model, folder)
    figures: dict[str, dict[str, float]] = {}
    for task_type in TaskType:
        asked = [task for task in tasks if task.type is task_type][:_MEASURED]
        figures[task_type] = {
            "free": accuracy.solving(asked, forced=False),
            "forced": accuracy.solving(asked, forced=True),
            "valid_proposals": accuracy.proposing(task_type, _MEASURED),
        }
        log(
            f"base model: {task_type}: "
            + ", ".join(f"{name} {value:.2f}" for name, value in figures[task_type].items())
        )
    return figures
