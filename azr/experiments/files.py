"""Where an experiment writes: its folder, and files in it that appear whole or not at all, so that a reader, or an
interrupt, never meets half of one.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import ConfigError


def write_whole(path: Path, text: str) -> None:
    """Through a temporary name beside it and a rename. Not guaranteed: that it outlives a loss of power."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)


def claimed(out: Path, *, resume: bool) -> Path:
    """`out`, absolute. ConfigError if it holds an experiment that is not to be finished."""
    if (out / "runs").exists() and not resume:
        raise ConfigError(f"{out} holds an experiment: add --resume to finish it, or name another --out")
    return out.absolute()
