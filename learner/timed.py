"""Which part of the intake is at work, told to its tally (common/tally.py).

transport  messages are decoded, encoded and handed on (common/server.py)
admit      leases are granted and renewed, groups taken in, novelty asked
journal    records are written; with a batch, the disk is waited for
batch      a batch is settled, its advantages computed, cut into shares
step       shares are handed out; the row of a step, compaction behind a checkpoint
push       weight pushes, and what follows when a version is in service
report     ledgers of others are written to the trace
idle       none of these: it waits, or asyncio and ZeroMQ are at work between two of them
"""

from __future__ import annotations

from typing import Any

from common import messages as m
from common.tally import Tally
from common.transport import Handler, Peer

BATCH, JOURNAL, PUSH = "batch", "journal", "push"
STATES: dict[type, str] = {
    **dict.fromkeys((m.WantLeases, m.Renew, m.Deliver, m.AskNovelty), "admit"),
    **dict.fromkeys((m.WantShare, m.StepDone, m.CheckpointDone), "step"),
    **dict.fromkeys((m.WantPush, m.Offer, m.Published, m.Staged, m.Committed), PUSH),
    m.Report: "report",
}


class Timed:
    """Handler of the intake's server, around another one."""

    def __init__(self, handler: Handler, tally: Tally) -> None:
        self._handler, self._tally = handler, tally

    def joined(self, peer: Peer, hello: m.Hello) -> None:
        self._handler.joined(peer, hello)

    def left(self, peer: Peer, reason: str) -> None:
        self._handler.left(peer, reason)

    async def handle(self, peer: Peer, message: Any) -> object:
        return await self._tally.running(STATES.get(type(message), "transport"), self._handler.handle(peer, message))
