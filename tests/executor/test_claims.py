"""What is made of a child's bytes: hand-written replies."""

from __future__ import annotations

import signal

import pytest

from executor import frames
from executor.claims import Claim, parse

OK_1, OK_2 = (frames.OK, b"1"), (frames.OK, b"2")
RAN_OUT = (frames.MEMORY, b"")


def reply(*items: frames.Item, status: int = 0, ended: int = frames.ENDED_ITSELF, more: bytes = b"") -> bytes:
    return frames.REPORT.pack(status, ended, 0) + frames.pack(items) + more


@pytest.mark.parametrize(
    ("said", "texts", "death"),
    [
        (reply(OK_1, OK_2), [b"1", b"2"], ""),
        (reply(OK_1), [b"1"], "exited"),
        (reply(OK_1, status=signal.SIGPROF), [b"1"], "timeout_cpu"),
        (reply(OK_1, status=signal.SIGSYS), [b"1"], "violation"),
        (reply(status=signal.SIGSEGV), [], "crash_11"),
        (reply(OK_1, status=signal.SIGKILL, ended=frames.ENDED_BY_CLOCK), [b"1"], "timeout_wall"),
        (reply(OK_1, status=signal.SIGKILL, ended=frames.ENDED_BY_FLOOD), [b"1"], "flood"),
        (reply(OK_1, RAN_OUT), [b"1"], "memory"),
        (reply(RAN_OUT, OK_1), [], "protocol"),
        (reply(OK_1, OK_2, OK_1), [], "protocol"),
        (reply(OK_1, OK_2, more=b"x"), [], "protocol"),
        (reply(OK_1, more=b"x"), [], "protocol"),  # left by itself in the middle of an item
        (reply(OK_1, more=b"x", status=signal.SIGSEGV), [b"1"], "crash_11"),
        (reply(OK_1, (99, b"")), [], "protocol"),
    ],
)
def test_two_inputs(said: bytes, texts: list[bytes], death: str) -> None:
    assert parse(said, 2) == ([Claim("ok", text) for text in texts], death)
