import asyncio
from dataclasses import replace

import numpy as np
import pytest

from actors.engine import Completion
from actors.meter import Meter
from actors.nonfinite import LIMIT, WINDOW, NonFinite
from common.errors import PartFailed
from common.ledger import Ledger
from common.types import Span
from tests.fakes.engine import FakeEngine
from tests.fakes.executor import FakeExecutor

GOOD = Completion(np.arange(3, dtype=np.int32), np.full(3, -1, np.float32), (Span(0, 0, 3),), "stop")
BAD = [replace(GOOD, logprobs=np.array([-1, wrong, -1], np.float32)) for wrong in (np.nan, -np.inf, np.inf)]


@pytest.mark.parametrize("bad", BAD)
def test_one_too_many_is_a_failure_that_names_the_engine(bad: Completion) -> None:
    watch = NonFinite()
    watch.note([GOOD] * 100)
    watch.note([bad] * LIMIT)
    with pytest.raises(PartFailed, match=rf"engine: log-probs of {LIMIT + 1} of its last {101 + LIMIT} answers"):
        watch.note([bad])


def test_rare_ones_are_borne_for_ever() -> None:
    watch, every = NonFinite(), WINDOW // LIMIT + 1
    for number in range(20 * WINDOW):
        watch.note([GOOD if number % every else BAD[0]])


def test_answers_that_are_long_past_do_not_count() -> None:
    watch = NonFinite()
    for _ in range(5):
        watch.note([BAD[0]] * LIMIT)
        watch.note([GOOD] * WINDOW)


async def test_an_engine_that_overflows_ends_its_episodes_with_its_name() -> None:
    meter = Meter(FakeEngine(lambda prompt, i: "a", logprob=float("nan")), FakeExecutor(), Ledger("idle"))

    async def ask(n: int) -> list[Completion]:
        return await meter.generate(np.ones(2, np.int32), n=n, temperature=1.0, seed=0, max_tokens=4)

    assert len(await asyncio.wait_for(ask(LIMIT), 10)) == LIMIT  # data so far: the episode drops its group
    with pytest.raises(PartFailed, match="engine"):
        await asyncio.wait_for(ask(1), 10)
