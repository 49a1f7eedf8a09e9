"""How old the tasks of a batch are, in versions: for people, like all metrics.

Staleness says how old the weights are that sampled a token; this says it of what they worked on. At the step u that
trains a group, a task is as old as u minus the version with which it entered the book (seeds: version 0), and the
solve rate that paid a proposer as u minus the oldest version that sampled an answer it was taken from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from common.types import Group


def task_ages(step: int, batch: Sequence[Group], entered: Callable[[str], int | None]) -> dict[str, float]:
    """Mean and maximum of each kind of age; none where there is nothing of the kind.

    `entered`: the version with which the task of a key entered the book, None for a key that it does not hold.
    """
    known = {key: v for g in batch for key in (*g.references, g.asked) if key and (v := entered(key)) is not None}
    ages = {
        "references": [step - known[key] for group in batch for key in group.references if key in known],
        "tasks": [step - known[group.asked] for group in batch if group.asked in known],
        "solve_rates": [step - version for group in batch if (version := _measured(group)) is not None],
    }
    means = {f"staleness/{name}": float(np.mean(found)) for name, found in ages.items() if found}
    return means | {f"staleness/{name}_max": float(max(found)) for name, found in ages.items() if found}


def _measured(group: Group) -> int | None:
    """The oldest version that had a part in the solve rate of a proposal."""
    if not group.kind.proposes or group.solve_rate is None:
        return None
    answers = [sample for sample in group.samples if sample.stream is not group.kind]
    return min((span.version for sample in answers for span in sample.spans), default=None)
