"""The time ledger: one state at a time, and they sum to the time that passed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.ledger import Ledger


class Time:
    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def test_spans_and_totals_by_hand() -> None:
    now = Time()
    ledger = Ledger("start", now)
    now.at = 102.0
    ledger.enter("generate")
    now.at = 105.0
    ledger.enter("wait")
    now.at = 106.0
    ledger.enter("generate")
    now.at = 110.0
    totals, spans = ledger.drain()
    assert totals == {"start": 2.0, "generate": 7.0, "wait": 1.0}
    assert spans == (
        ("start", 100.0, 102.0),
        ("generate", 102.0, 105.0),
        ("wait", 105.0, 106.0),
        ("generate", 106.0, 110.0),
    )
    assert ledger.state == "generate"


def test_draining_cuts_the_span_under_way_and_keeps_totals() -> None:
    now = Time()
    ledger = Ledger("work", now)
    now.at = 101.0
    ledger.drain()
    now.at = 103.0
    assert ledger.drain() == ({"work": 3.0}, (("work", 101.0, 103.0),))
    assert ledger.drain() == ({"work": 3.0}, ())


def test_entering_the_same_state_cuts_nothing() -> None:
    now = Time()
    ledger = Ledger("work", now)
    now.at = 101.0
    ledger.enter("work")
    now.at = 102.0
    assert ledger.drain()[1] == (("work", 100.0, 102.0),)


def test_without_a_clock_it_reads_the_wall() -> None:
    ledger = Ledger()
    ledger.enter("work")
    totals, spans = ledger.drain()
    assert all(seconds >= 0.0 for seconds in totals.values())
    assert all(begin > 1e9 for _, begin, _ in spans)


events = st.lists(st.tuples(st.floats(0.0, 10.0), st.sampled_from(["a", "b", "c", "drain"])), max_size=40)


@given(events)
def test_states_sum_to_the_time_that_passed(sequence: list[tuple[float, str]]) -> None:
    now = Time()
    ledger = Ledger("start", now)
    spans: list[tuple[str, float, float]] = []
    for seconds, what in sequence:
        now.at += seconds
        if what == "drain":
            spans += ledger.drain()[1]
        else:
            ledger.enter(what)
    totals, rest = ledger.drain()
    spans += rest
    assert sum(totals.values()) == pytest.approx(now.at - 100.0)
    assert [begin for _, begin, _ in spans[1:]] == [end for _, _, end in spans[:-1]]
    for state, seconds in totals.items():
        assert sum(e - b for s, b, e in spans if s == state) == pytest.approx(seconds)
