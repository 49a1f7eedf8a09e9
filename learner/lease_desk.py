"""The lease desk: where actors ask for leases, and wait while there are none.

First come, first served, among the actors whose engine serves the version in force; an actor with another version waits
until the version in force changes. Whatever is granted is in the lease ledger before it leaves.

Questions of an evaluation come first, then seeds, then what admission has. A change that grants nothing costs the same
however many actors wait.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from common.types import Kind, Lease
from learner.admission import Admission
from learner.evaluation import Evaluation
from learner.lease_ledger import LeaseLedger
from learner.leases import LeaseMaker
from learner.seeding import Seeding


class LeaseDesk:
    """`in_service`: whether an actor may be granted anything now; `temperature`: of evaluation."""

    def __init__(
        self,
        admission: Admission,
        evaluation: Evaluation,
        seeding: Seeding,
        maker: LeaseMaker,
        ledger: LeaseLedger,
        in_service: Callable[[int], bool],
        temperature: float,
    ) -> None:
        self._admission, self._evaluation, self._seeding = admission, evaluation, seeding
        self._maker, self._ledger = maker, ledger
        self._in_service, self._temperature = in_service, temperature
        self._asking: deque[_Ask] = deque()
        self._elsewhere: deque[_Ask] = deque()  # asked while their engine did not serve the version in force
        self._closed = False

    async def ask(self, actor: int, capacity: int) -> list[Lease]:
        """At least one lease and at most `capacity`, as soon as there are any; none once the desk is closed."""
        if self._closed:
            return []
        asked = _Ask(actor, capacity, asyncio.get_running_loop().create_future())
        self._asking.append(asked)
        self.serve()
        return await asked.answer

    def serve(self) -> None:
        """Something may have come free."""
        while self._asking:
            asked = self._asking[0]
            if not asked.answer.done():  # done: the actor has gone
                if not self._in_service(asked.actor):
                    self._elsewhere.append(self._asking.popleft())
                    continue
                leases = self._grant(asked.actor, asked.capacity)
                if not leases:
                    return
                asked.answer.set_result(leases)
            self._asking.popleft()

    def version_changed(self) -> None:
        """Look at everybody again; who has waited longest comes first."""
        self._elsewhere.extend(self._asking)
        self._asking, self._elsewhere = self._elsewhere, deque()
        self.serve()

    def close(self) -> None:
        """The run is over: whoever asks goes without."""
        self._closed = True
        for asked in (*self._elsewhere, *self._asking):
            if not asked.answer.done():
                asked.answer.set_result([])

    def _grant(self, actor: int, capacity: int) -> list[Lease]:
        leases: list[Lease] = []
        version = self._admission.version
        while len(leases) < capacity and (asked := self._evaluation.next_question()) is not None:
            lease = self._admission.new_id(Kind.EVAL)
            self._ledger.granted(lease, version)
            self._evaluation.granted(lease)
            made = self._maker.evaluation(lease, version, asked.task, self._temperature, asked.set.begun)
            leases.append(self._admission.grant_apart(actor, made))
        while len(leases) < capacity and (slot := self._seeding.next_slot()) is not None:
            lease = self._admission.new_id(Kind.SEED)
            self._ledger.granted(lease, version)
            self._seeding.granted(lease)
            leases.append(self._admission.grant_apart(actor, self._maker.seed(lease, slot.task, slot.number)))
        return leases + self._admission.grant(actor, capacity - len(leases), new=not self._seeding.active)


class _Ask:
    __slots__ = ("actor", "answer", "capacity")

    def __init__(self, actor: int, capacity: int, answer: asyncio.Future[list[Lease]]) -> None:
        self.actor, self.capacity, self.answer = actor, capacity, answer
