"""The processes of a run, found the way the guard finds them."""

from __future__ import annotations

from pathlib import Path

from azr.guard import TOKEN


def descendants(root: int) -> set[int]:
    """`root`, which drives a run, its descendants, all that carry the run's token, and theirs."""
    parents: dict[int, int] = {}
    tokens: dict[int, bytes] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            environment = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if state != "Z":
            parents[int(entry.name)] = int(parent)
            tokens[int(entry.name)] = next((e for e in environment if e.startswith(f"{TOKEN}=".encode())), b"")
    family = _grown({root}, parents)
    token = next(tokens[pid] for pid in family if tokens.get(pid))
    return _grown(family | {pid for pid, found in tokens.items() if found == token}, parents)


def _grown(family: set[int], parents: dict[int, int]) -> set[int]:
    while more := {pid for pid, parent in parents.items() if parent in family} - family:
        family |= more
    return family


def named(family: set[int], name: str) -> int:
    """The one process of `family` that Ray calls ray::`name`."""
    titles = {pid: Path(f"/proc/{pid}/cmdline") for pid in family}
    (found,) = [pid for pid, title in titles.items() if title.read_bytes().startswith(f"ray::{name}".encode())]
    return found
