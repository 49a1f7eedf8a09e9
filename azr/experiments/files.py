"""Files that appear whole or not at all, so that a reader, or an interrupt, never meets half of one."""

from __future__ import annotations

from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Through a temporary name beside it and a rename. Not guaranteed: that it outlives a loss of power."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.rename(path)
