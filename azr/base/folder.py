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
from azr.base.pretrain import Trained, pretrain
from azr.base.recipe import Recipe
from common.types import TASK_TYPES, Task

_MEASURED = 200  # tasks per type
_WORTH_MEASURING = 1000  # steps


def publish(path: Path, recipe: Recipe, log: Callable[[str], None]) -> None:
    """Raises FileExistsError if `path` exists. An interrupted build leaves nothing at `path`; of two at a time one
    finds its work already done."""
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it to make the base model again")
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent, ignore_cleanup_errors=True) as name:
        folder = Path(name) / path.name
        folder.mkdir()
        log(f"base model: making {path}, {recipe.steps} steps on one core")
        _write(folder, recipe, log)
        if not path.exists():
            folder.rename(path)
    log(f"base model: {path} is ready")


def _write(folder: Path, recipe: Recipe, log: Callable[[str], None]) -> None:
    tokens = tokenizer.train(recipe)
    tokenizer.save(tokens, folder)
    trained = pretrain(recipe, tokens, log)
    _save_model(trained.model, folder)
    sets = {"standard": heldout.standard(recipe.seed), "harder": heldout.harder(recipe.seed)}
    heldout.write(folder / heldout.STANDARD, sets["standard"])
    heldout.write(folder / heldout.HARDER, sets["harder"])
    measured = _measure(trained, folder, sets, log) if recipe.steps >= _WORTH_MEASURING else {}
    (folder / "base.json").write_text(
        json.dumps(
            {
                "recipe": dataclasses.asdict(recipe),
                "losses": [round(loss, 4) for loss in trained.losses],
                "examples": trained.examples,
                "tokens": trained.tokens,
                "cpu_seconds": round(trained.seconds, 1),
                "accuracy": measured,
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
    trained: Trained, folder: Path, sets: dict[str, tuple[Task, ...]], log: Callable[[str], None]
) -> dict[str, dict[str, float]]:
    """By task type: accuracy on each set, free and forced to think, and the share of valid proposals."""
    accuracy = Accuracy(trained.model, folder)
    figures: dict[str, dict[str, float]] = {}
    for task_type in TASK_TYPES:
        found = {"valid_proposals": accuracy.proposing(task_type, _MEASURED)}
        for name, tasks in sets.items():
            asked = [task for task in tasks if task.type is task_type][:_MEASURED]
            found[name] = accuracy.solving(asked, forced=False)
            found[f"{name}/forced"] = accuracy.solving(asked, forced=True)
        figures[task_type] = found
        log(f"base model: {task_type}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    return figures
