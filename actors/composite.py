"""Composite functions f(g()) (Absolute Zero, appendix): programs of the book as components g_0, g_1, …, and the new f
that calls them, in one text. Whoever solves or runs a composite sees a program like any other.

A component is renamed as text, because nobody but the executor's checker parses what a model wrote: every word `f`
becomes its name, but for the prefix of a format string and the f of `{x:f}` and `%f`. In code that renames the program
as a whole, whatever else it calls f. Not guaranteed: the text within its strings, and that two components do not define
helpers of one name, of which the later counts. Such a composite is another program, and valid if it runs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from common.types import Task

_ENTRY = re.compile(r"""(?<!%)\bf\b(?!["'])(?!(?<=:f)\})""")


def name(number: int) -> str:
    return f"g_{number}"


def names(count: int) -> tuple[str, ...]:
    """Of `count` components, in their order."""
    return tuple(map(name, range(count)))


def components(tasks: Sequence[Task]) -> tuple[str, ...]:
    """The programs of `tasks`, the entry of the i-th called g_i."""
    return tuple([_ENTRY.sub(name(number), task.program) for number, task in enumerate(tasks)])


def whole(parts: Sequence[str], own: str) -> str:
    """The program that consists of the components `parts` and the text `own` behind them."""
    return "\n".join((*parts, own))
