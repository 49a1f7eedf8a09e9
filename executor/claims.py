"""What a child has said, as far as it can be attributed to the inputs it was given, in order.

A child may die of an input, and the inputs before it may have used up its time or memory, or tampered with it. So a
death is blamed on an input only if that input was the first of its child. Nothing here is believed: an ok claim's
text still has to pass the checker.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

from common.types import Status
from executor import frames


@dataclass(frozen=True, slots=True)
class Claim:
    """What one child said of one input, or why it said nothing."""

    status: str
    data: bytes = b""


def parse(reply: bytes, asked: int) -> tuple[list[Claim], str]:
    """Claims of the first inputs, and what ended the child before it had told of all: a status, empty if nothing."""
    status, ended, _ = frames.REPORT.unpack_from(reply)
    items, rest = frames.unpack_whole(reply[frames.REPORT.size :])
    surplus = len(items) > asked or (len(items) == asked and rest > 0)
    torn = rest > 0 and status == 0  # a child that leaves by itself leaves no half item
    if surplus or torn or any(code >= len(frames.STATUSES) for code, _ in items):
        return [], Status.PROTOCOL
    claims = [Claim(frames.STATUSES[code], data) for code, data in items]
    if frames.MEMORY in [code for code, _ in items[:-1]]:
        return [], Status.PROTOCOL  # a child that says so does no more
    if claims and claims[-1].status == Status.MEMORY:
        return claims[:-1], Status.MEMORY
    return claims, "" if len(claims) == asked else _death(status, ended)


def _death(status: int, ended: int) -> str:
    if ended == frames.ENDED_BY_CLOCK:
        return Status.TIMEOUT_WALL
    if ended == frames.ENDED_BY_FLOOD:
        return Status.FLOOD
    number = status & 0x7F
    if number == signal.SIGPROF:
        return Status.TIMEOUT_CPU
    if number == signal.SIGSYS:
        return Status.VIOLATION
    if number == frames.NO_CHILD:
        return Status.INFRA
    return f"crash_{number}" if number else Status.EXITED
