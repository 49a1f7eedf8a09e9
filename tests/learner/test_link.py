"""An event loop on a thread of its own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from learner.link import LoopThread


async def whoami() -> str:
    return threading.current_thread().name


async def broken() -> None:
    raise ValueError("no")


def test_coroutines_run_on_the_thread() -> None:
    link = LoopThread("link")
    assert link.call(whoami()) == "link"
    assert link.spawn(whoami()).result() == "link"
    with pytest.raises(ValueError, match="no"):
        link.call(broken())
    link.close()


def test_close_ends_what_still_runs() -> None:
    link = LoopThread("link")
    started, ended = threading.Event(), threading.Event()

    async def forever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    work = link.spawn(forever())
    assert started.wait(20)
    link.close()
    assert ended.is_set() and work.cancelled()
