"""Answers whose log-probs are not all finite: an overflow in the engine, or weights that are spoilt.

vLLM is said to return one in some thousands (SkyRL floors and counts them); what has sampled them is not what the
learner computes, so their groups are dropped as failed rollouts (actors/episode.py). An engine that gives many of them
is not well: over LIMIT of the last WINDOW answers it fails by name, and is started again and given its weights anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np

from actors.engine import Completion
from common.errors import PartFailed

WINDOW = 256  # answers
LIMIT = 12  # of these: 5 %


class NonFinite:
    def __init__(self) -> None:
        self._last: deque[bool] = deque(maxlen=WINDOW)

    def note(self, completions: Sequence[Completion]) -> None:
        """PartFailed if there have been too many of late."""
        self._last.extend(not np.isfinite(completion.logprobs).all() for completion in completions)
        if sum(self._last) > LIMIT:
            what = f"log-probs of {sum(self._last)} of its last {len(self._last)} answers are not finite"
            hint = "if others fail so, too, the weights are spoilt: --resume goes on from the last checkpoint"
            raise PartFailed("engine", what, hint=hint)
