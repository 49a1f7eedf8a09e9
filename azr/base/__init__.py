"""The tiny base model: a language model of a third of a million parameters, made from nothing in minutes on
one core.

It proposes valid tasks and solves them badly, which is what self-play needs to start from. `build` makes its
folder; `heldout` reads the tasks kept out of its training text. Importing this package imports no torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from common.config import ModelConfig


def build(path: Path, *, steps: int, seed: int = 0, log: Callable[[str], None] = print) -> None:
    """Pre-train the base model and publish it at `path`, a Hugging Face folder (see `azr.base.folder`).

    Raises FileExistsError if `path` exists. The folder appears whole or not at all.
    """
    from azr.base.folder import publish
    from azr.base.recipe import Recipe

    publish(path, Recipe(steps=steps, seed=seed), log)


def located(model: ModelConfig) -> ModelConfig:
    """`model` with the folder that a run uses: `path` if it exists, or else where its base model is kept.

    That is beside `path`, under a name that says all that the base model is made from: one of another recipe is
    never taken for it.
    """
    path = Path(model.path)
    if not model.build or path.exists():
        return model
    from azr.base.recipe import Recipe

    digest = Recipe(steps=model.base_steps, seed=model.base_seed).digest
    return dataclasses.replace(model, path=str(path.with_name(f"{path.name}-{digest}")))


def ensure(model: ModelConfig, log: Callable[[str], None] = print) -> None:
    """Build the base model of `model`, which is `located`, if it is asked for and missing. Takes minutes."""
    if model.build and not Path(model.path).exists():
        build(Path(model.path), steps=model.base_steps, seed=model.base_seed, log=log)
