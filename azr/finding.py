"""One thing that an examination found (azr/check.py)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    fatal: bool
    text: str  # what is wrong, with the figures
    hint: str  # what to try

    def __str__(self) -> str:
        return f"{'error' if self.fatal else 'warning'}: {self.text}\n  try: {self.hint}"
