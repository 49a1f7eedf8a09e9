"""What an answer and a valid proposal are paid (Absolute Zero, section 3.1, equations 4 to 6)."""

from __future__ import annotations

NO_FORMAT = -1.0
WRONG = -0.5


def solver(correct: bool, well_formed: bool) -> float:
    if not well_formed:
        return NO_FORMAT
    return 1.0 if correct else WRONG


def proposer(solve_rate: float, extreme: float) -> float:
    """1 − mean solve rate; `extreme` for a task that every or no answer got right (paper 0, official code −0.5)."""
    return 1.0 - solve_rate if 0.0 < solve_rate < 1.0 else extreme
