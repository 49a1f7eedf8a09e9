"""What memory arithmetic needs to know of a model: its shape and the width of its feed-forward layers.

Of a folder the latter is read from config.json. The published models are known by the name of their folder, so that
what they need can be told before anything is downloaded; their figures are those of their own config.json files, and
tests build each of them without storage to compare the number of parameters.
Not covered: mixtures of experts, whose activations follow other rules.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from azr.model_folder import Shape
from common.errors import PartFailed


@dataclass(frozen=True, slots=True)
class Architecture:
    """`feed_forward`: hidden units of an MLP; `repository`: where on Hugging Face it is, empty if not published."""

    shape: Shape
    feed_forward: int
    repository: str = ""


def read(folder: Path, shape: Shape) -> Architecture:
    """Of a complete model folder, whose shape is `shape`. Raises PartFailed("model", …) without `intermediate_size`."""
    width = json.loads((folder / "config.json").read_bytes()).get("intermediate_size")
    if not isinstance(width, int) or width < 1:
        raise PartFailed(
            "model",
            f"{folder / 'config.json'}: intermediate_size is {width!r}; memory is computed for dense decoders only",
            hint="another model.path",
        )
    return Architecture(shape, width)


def published(folder: Path) -> Architecture | None:
    """The published model that a folder of this name holds."""
    return _PUBLISHED.get(folder.name)


def names() -> tuple[str, ...]:
    """Folder names of the published models."""
    return tuple(_PUBLISHED)


_PUBLISHED = {
    architecture.repository.partition("/")[2]: architecture
    for architecture in (
        Architecture(
            Shape(
                parameters=3_085_938_688,
                layers=36,
                hidden=2048,
                heads=16,
                kv_heads=2,
                head_dim=128,
                vocabulary=151_936,
                positions=32_768,
            ),
            feed_forward=11_008,
            repository="Qwen/Qwen2.5-Coder-3B",
        ),
        Architecture(
            Shape(
                parameters=7_615_616_512,
                layers=28,
                hidden=3584,
                heads=28,
                kv_heads=4,
                head_dim=128,
                vocabulary=152_064,
                positions=131_072,
            ),
            feed_forward=18_944,
            repository="Qwen/Qwen2.5-7B",
        ),
        Architecture(
            Shape(
                parameters=7_615_616_512,
                layers=28,
                hidden=3584,
                heads=28,
                kv_heads=4,
                head_dim=128,
                vocabulary=152_064,
                positions=32_768,
            ),
            feed_forward=18_944,
            repository="Qwen/Qwen2.5-Coder-7B",
        ),
        Architecture(
            Shape(
                parameters=14_770_033_664,
                layers=48,
                hidden=5120,
                heads=40,
                kv_heads=8,
                head_dim=128,
                vocabulary=152_064,
                positions=32_768,
            ),
            feed_forward=13_824,
            repository="Qwen/Qwen2.5-Coder-14B",
        ),
        Architecture(
            Shape(
                parameters=8_030_261_248,
                layers=32,
                hidden=4096,
                heads=32,
                kv_heads=8,
                head_dim=128,
                vocabulary=128_256,
                positions=131_072,
            ),
            feed_forward=14_336,
            repository="meta-llama/Llama-3.1-8B",
        ),
    )
}
