"""Checkpoints: a folder that appears whole or not at all, and does not depend on ranks or ZeRO stage.

    FOLDER/trainer.json              steps trained, precision of the weights, format
    FOLDER/hf/                       a Hugging Face folder that vLLM loads: config, tokenizer, weights
    FOLDER/optimizer-00000.safetensors …   float32 by parameter name: first and second moments of AdamW and, where the
                                     weights are not float32, the masters that they are the rounding of

Invariant: a folder under its final name is complete and on disk. There is no pickle in it.
Not contained: task book, ledger and journal, which belong to the intake.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import save_torch_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from common.errors import PartFailed
from learner.durable import sync

FORMAT = 2
FLOAT32_ONLY = 1  # the format before, which is read as well
WEIGHT_FILES = (".safetensors", ".bin", ".pt", ".pth", ".gguf", ".h5", ".msgpack", ".index.json")


@contextmanager
def durable_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; on success it is on disk as `folder`, in place of what was there.

    On failure `folder` is as before, and the half-filled one is removed by the next attempt. A crash while an
    old folder is being replaced can lose the old one: write under a fresh name what must not be lost.
    """
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    for path in (*partial.rglob("*"), partial):
        sync(path)
    if folder.exists():
        shutil.rmtree(folder)
    partial.rename(folder)
    sync(folder.parent)


def write_model(hf: Path, source: Path, weights: dict[str, Tensor]) -> None:
    """Weights (checkpoint name → tensor) as safetensors, beside config and tokenizer of `source`."""
    hf.mkdir()
    for path in source.iterdir():
        if path.is_file() and not path.name.endswith(WEIGHT_FILES):
            shutil.copyfile(path, hf / path.name)
    save_torch_state_dict(weights, hf, metadata={"format": "pt"})


def write_states(folder: Path, index: int, states: list[tuple[str, Tensor]]) -> None:
    """Bucket `index` of Zero.states, a file of its own."""
    named = {name: tensor.contiguous().cpu() for name, tensor in states}
    save_file(named, folder / f"optimizer-{index:05d}.safetensors")


def read_states(folder: Path) -> Iterator[dict[str, Tensor]]:
    """One file at a time, name → float32 tensor."""
    for path in sorted(folder.glob("optimizer-*.safetensors")):
        yield load_file(path)


def write_manifest(folder: Path, *, steps: int, dtype: str) -> None:
    (folder / "trainer.json").write_text(json.dumps({"format": FORMAT, "steps": steps, "dtype": dtype}))


def read_manifest(folder: Path, *, dtype: str) -> int:
    """Steps trained. Raises PartFailed if `folder` is no complete checkpoint, of another format, or if its weights are
    not `dtype`: masters cannot be made up."""
    path = folder / "trainer.json"
    if not path.is_file():
        raise PartFailed("learner", f"{folder} is not a complete checkpoint: trainer.json is missing")
    manifest = json.loads(path.read_text())
    if manifest["format"] not in (FLOAT32_ONLY, FORMAT):
        known = f"{FLOAT32_ONLY} and {FORMAT}"
        raise PartFailed("learner", f"{folder} has format {manifest['format']}; this program reads {known}")
    trained = manifest.get("dtype", "float32")
    if trained != dtype:
        raise PartFailed(
            "learner",
            f"{folder} was trained in {trained}, and model.dtype is {dtype}",
            hint=f"model.dtype={trained}, or begin a new run with model.path={folder}/hf",
        )
    return int(manifest["steps"])


def prune(folder: Path, *, keep: int) -> None:
    """Remove all but the newest `keep` checkpoints (step-NNNNNN) of `folder`."""
    for old in sorted(folder.glob("step-*[0-9]"))[:-keep]:
        shutil.rmtree(old)
