"""Do the project's generic top-level names (`common`, `executor`, …) really mean the project's own folders?

Another installed distribution may bring a package of the same name, and which one an import then yields depends on the
order of `sys.path`, which differs between the command line, Ray's workers and plain child processes. So every such copy
is refused, also one that loses in this process.

Only folders with an `__init__.py` and modules count: a namespace folder never hides a regular package. Copies that an
import hook of another editable installation offers are seen only if they win here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import all_suffixes
from importlib.metadata import distributions
from importlib.util import find_spec
from pathlib import Path

from common.errors import PartFailed

NAMES = ("actors", "learner", "executor", "common", "configs", "azr")
ROOT = Path(__file__).resolve().parent.parent


def imported_from(name: str) -> Path | None:
    """The folder or file that `import name` yields in this process; nothing is imported."""
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        return None
    origin = Path(spec.origin)
    return origin.parent if origin.name == "__init__.py" else origin


def require_own_packages(
    root: Path = ROOT,
    path: Sequence[str] | None = None,
    locate: Callable[[str], Path | None] = imported_from,
) -> None:
    """Raise PartFailed("installation", …) naming the distribution that provides one of NAMES outside `root`.

    `path`: the folders searched, `sys.path` by default. `locate`: what an import of a name would yield.
    """
    for name in NAMES:
        copies = list(_copies(name, root, sys.path if path is None else path))
        winner = locate(name)
        if winner is not None and winner.resolve() != (root / name).resolve():
            copies.append(winner)
        for copy in copies:
            owner = _owner(copy)
            remedy = f"uninstall {owner.split()[0]} from this environment" if owner else f"remove or rename {copy}"
            raise PartFailed(
                "installation",
                f"{owner or copy} also provides the package {name!r}, which can replace this project's in {root}",
                hint=f"{remedy}, or install this project into a virtual environment of its own (make setup)",
            )


def _copies(name: str, root: Path, path: Sequence[str]) -> Iterator[Path]:
    for folder in dict.fromkeys(Path(entry).resolve() for entry in path):
        if folder == root.resolve():
            continue
        if (folder / name / "__init__.py").exists():
            yield folder / name
        yield from (file for suffix in all_suffixes() if (file := folder / f"{name}{suffix}").exists())


def _owner(copy: Path) -> str:
    """Name and version of the distribution whose metadata lie beside `copy` and claim it; empty if there is none."""
    name = copy.name.partition(".")[0]
    for distribution in distributions(path=[str(copy.parent)]):
        tops = {file.parts[0].partition(".")[0] for file in distribution.files or ()}
        if name in tops | set((distribution.read_text("top_level.txt") or "").split()):
            return f"{distribution.metadata['Name']} {distribution.version} ({copy})"
    return ""
