"""What a Hugging Face model folder holds, read from config.json and the safetensors headers; no weight is loaded."""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from common.errors import PartFailed

_HEADER_LIMIT = 100 << 20  # bytes; the format's own bound
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of a decoder-only model. `positions`: longest sequence it was made for; 0 where unknown."""

    parameters: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int

    def kv_bytes(self, width: int) -> int:
        """Bytes of KV cache per token, at `width` bytes per number."""
        return 2 * self.layers * self.kv_heads * self.head_dim * width


# What azr.base makes; its vocabulary depends on its text and may be a little smaller.
TINY = Shape(
    parameters=357_376,
    layers=2,
    hidden=128,
    heads=4,
    kv_heads=2,
    head_dim=32,
    vocabulary=482,
    positions=512,
)


def missing(folder: Path) -> list[str]:
    """What a usable folder would have besides; empty when nothing is missing."""
    lacks = []
    if not (folder / "config.json").is_file():
        lacks.append("config.json")
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        lacks.append("a tokenizer (tokenizer.json)")
    if not any((folder / name).is_file() for name in _WEIGHTS):
        lacks.append("weights (model.safetensors)")
    return lacks


def shape(folder: Path) -> Shape:
    """Read the shape of a complete folder. Raises PartFailed("model", …) naming the file that cannot be read."""
    config = _json(folder / "config.json")
    heads = _integer(config, "num_attention_heads", folder)
    hidden = _integer(config, "hidden_size", folder)
    return Shape(
        parameters=sum(_elements(file) for file in _weight_files(folder)),
        layers=_integer(config, "num_hidden_layers", folder),
        hidden=hidden,
        heads=heads,
        kv_heads=_integer(config, "num_key_value_heads", folder, heads),
        head_dim=_integer(config, "head_dim", folder, hidden // heads),
        vocabulary=_integer(config, "vocab_size", folder),
        positions=_integer(config, "max_position_embeddings", folder, 0),
    )


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [folder / "model.safetensors"]
    names = _json(index).get("weight_map")
    if not isinstance(names, dict):
        raise _broken(index, "it has no weight_map")
    return [folder / name for name in sorted({str(name) for name in names.values()})]


def _elements(file: Path) -> int:
    """Numbers stored in a safetensors file: its first 8 bytes give the length of a JSON header."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header: dict[str, Any] = json.loads(stream.read(min(length, _HEADER_LIMIT)))
        return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
    except (OSError, struct.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise _broken(file, "its header is not that of a safetensors file") from error


def _json(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError) as error:
        raise _broken(file, str(error)) from error
    if not isinstance(value, dict):
        raise _broken(file, "it is not a JSON object")
    return value


def _integer(config: dict[str, Any], key: str, folder: Path, default: int | None = None) -> int:
    value = config.get(key)
    value = default if value is None else value
    if not isinstance(value, int) or value < 0 or (value == 0 and default is None):
        raise _broken(folder / "config.json", f"{key} is {value!r}; only decoder-only language models are understood")
    return value


def _broken(file: Path, why: str) -> PartFailed:
    return PartFailed("model", f"cannot read {file}: {why}", hint="copy the folder again, or set another model.path")
