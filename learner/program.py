"""What the text of a program says about it: complexity, size, and how far it is from another one.

Programs of models are parsed here and never run. One that cannot be parsed, or is beyond the limits, has no figures;
what the parsers refuse is refused as an exception. A parser that dies takes only the analysis process with it, unless
an intrinsic reward looks at programs: then the intake measures valid proposals, too, which the executor's checker has
parsed before.

The intake does not import it but is given it where it is wanted: complexipy, radon and rapidfuzz are none of its
business.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from complexipy import code_complexity
from radon.complexity import cc_visit_ast
from radon.metrics import h_visit_ast
from rapidfuzz.distance import Indel

MAX_CHARACTERS = 16384
MAX_NODES = 5000


@dataclass(frozen=True, slots=True)
class Program:
    """Figures of one program; `nodes` is its syntax tree, linearised.

    Cognitive complexity as complexipy counts it (Campbell, 2018); cyclomatic complexity of the most complex function
    (McCabe, 1976); volume, difficulty and effort after Halstead (1977) as radon counts them, over operations and
    comparisons. Lines are those with text on them.
    """

    cognitive: int
    cyclomatic: int
    volume: float
    difficulty: float
    effort: float
    lines: int
    statements: int
    nodes: tuple[str, ...]


@lru_cache(maxsize=1024)  # references come back again and again
def measure(source: str) -> Program | None:
    """The figures of `source`, or None if it is no Python of this interpreter or beyond the limits."""
    if len(source) > MAX_CHARACTERS:
        return None
    try:
        tree = ast.parse(source)
        nodes = tuple(_linear(tree))
        if len(nodes) > MAX_NODES:
            return None
        halstead = h_visit_ast(tree).total
        return Program(
            cognitive=code_complexity(source).complexity,
            cyclomatic=max((block.complexity for block in cc_visit_ast(tree)), default=0),
            volume=float(halstead.volume),
            difficulty=float(halstead.difficulty),
            effort=float(halstead.effort),
            lines=sum(bool(line.strip()) for line in source.splitlines()),
            statements=sum(isinstance(node, ast.stmt) for node in ast.walk(tree)),
            nodes=nodes,
        )
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def distance(one: Program, other: Program) -> float:
    """Edit distance of two syntax trees in [0, 1]: 0 equal, 1 nothing in common.

    1 - 2 · LCS / (length + length) over the linearised trees, LCS the longest common subsequence. This is what the
    ratio of difflib approximates from below, which the official system takes of the trees as indented JSON (0.1 s a
    pair); a bit-parallel LCS of the nodes themselves takes microseconds.
    """
    return Indel.normalized_distance(one.nodes, other.nodes)


def _linear(tree: ast.AST) -> Iterator[str]:
    """Nodes in source order, each followed by its own names and constants; contexts of names left out."""
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        yield type(node).__name__
        children: list[ast.AST] = []
        for _, value in ast.iter_fields(node):
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.AST):
                    if not isinstance(item, ast.expr_context):
                        children.append(item)
                elif item is not None:
                    yield repr(item)
        waiting += reversed(children)
