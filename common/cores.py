"""Which of this machine's cores each part of a run may use."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass

_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")


@dataclass(frozen=True)
class CoresConfig:
    """Lists as taskset writes them: 0,2-3. Empty: as cluster.pin says, or else all that the run itself may use."""

    actor: str = ""  # rollout actors, each with its engine
    executor: str = ""
    intake: str = ""  # with the analysis beside it
    trainer: str = ""
    ray: str = ""  # Ray's own processes, and the one that was started as `azr train`

    @property
    def rules(self) -> list[tuple[bool, str]]:
        """What must hold, and what to say if it does not."""
        written = dataclasses.asdict(self).items()
        return [
            (not text or (_LIST.fullmatch(text) is not None and cores(text) != ()), _message(role, text))
            for role, text in written
        ]


def _message(role: str, text: str) -> str:
    return f"cluster.cores.{role} must be like 0 or 0,2-3, not {text}"


def cores(text: str) -> tuple[int, ...]:
    """In order, each once. `text` keeps to the rules."""
    found: set[int] = set()
    for part in text.split(",") if text else ():
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return tuple(sorted(found))
