"""The project's own source as data, for the tests that hold its rules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("actors", "learner", "executor", "common", "configs", "azr")


def sources(*folders: str) -> list[Path]:
    """Python files below these top-level folders, sorted."""
    return sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))


def module(file: Path) -> str:
    """Dotted name under which `file` is imported."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports(file: Path, *, for_types: bool = True) -> frozenset[str]:
    """Dotted names of everything `file` imports anywhere, `from a import b` as both a and a.b.

    for_types=False leaves out what stands under `if TYPE_CHECKING:` and so is never imported.
    """
    found: set[str] = set()
    for node in _nodes(ast.parse(file.read_text(encoding="utf-8")), for_types):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import; write the full name"
            found |= {str(node.module)} | {f"{node.module}.{alias.name}" for alias in node.names}
    return frozenset(found)


def reached(start: str) -> dict[str, str]:
    """Every module that importing and running `start` can import, mapped to the own module that names it."""
    files = {module(file): file for file in sources(*PACKAGES)}
    found, waiting = {start: ""}, [start]
    while waiting:
        name = waiting.pop()
        for parent in (name.rpartition(".")[0], *imports(files[name], for_types=False)):
            if parent and parent not in found:
                found[parent] = name
                if parent in files:
                    waiting.append(parent)
    return found


def _nodes(node: ast.AST, for_types: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test).endswith("TYPE_CHECKING") and not for_types:
            continue
        yield child
        yield from _nodes(child, for_types)
