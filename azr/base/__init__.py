"""The tiny base model: a language model of a third of a million parameters, made from nothing in minutes on
one core.

It proposes valid tasks and solves them badly, which is what self-play needs to start from. `build` makes its
folder; `heldout` reads the tasks kept out of its training text. Importing this package imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def build(path: Path, *, steps: int, seed: int = 0, log: Callable[[str], None] = print) -> None:
    """Pre-train the base model and publish it at `path`, a Hugging Face folder (see `azr.base.folder`).

    Raises FileExistsError if `path` exists. The folder appears whole or not at all.
    """
    from azr.base.folder import publish

    publish(path, steps=steps, seed=seed, log=log)
