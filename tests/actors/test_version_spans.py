from itertools import accumulate, pairwise

from hypothesis import given
from hypothesis import strategies as st

from actors.version_spans import VersionSpans
from common.types import Span


def test_a_request_goes_on_under_the_version_that_was_committed() -> None:
    spans = VersionSpans(3)
    spans.begin("a")
    spans.commit(4, {"a": 7})
    spans.commit(6, {"a": 9})
    assert spans.end("a", 12) == (Span(3, 0, 7), Span(4, 7, 9), Span(6, 9, 12))


def test_a_version_that_sampled_nothing_has_no_span() -> None:
    spans = VersionSpans(0)
    spans.begin("waiting")
    spans.begin("paused twice")
    spans.begin("not yet known to the engine")
    spans.commit(1, {"waiting": 0, "paused twice": 5})
    spans.commit(2, {"waiting": 0, "paused twice": 5})
    spans.begin("new")
    assert spans.end("waiting", 4) == (Span(2, 0, 4),)
    assert spans.end("paused twice", 6) == (Span(0, 0, 5), Span(2, 5, 6))
    assert spans.end("not yet known to the engine", 3) == (Span(2, 0, 3),)
    assert spans.end("new", 1) == (Span(2, 0, 1),)


def test_an_answer_that_ended_at_a_commit_and_one_without_tokens() -> None:
    spans = VersionSpans(0)
    spans.begin("full")
    spans.begin("empty")
    spans.commit(1, {"full": 5, "empty": 0})
    assert spans.end("full", 5) == (Span(0, 0, 5),)
    assert spans.end("empty", 0) == ()


def test_what_is_dropped_is_forgotten() -> None:
    spans = VersionSpans(0)
    spans.begin("a")
    spans.drop("a")
    spans.drop("a")
    spans.commit(1, {"a": 3})
    spans.begin("a")
    assert spans.end("a", 2) == (Span(1, 0, 2),)


@given(st.integers(0, 3), st.lists(st.tuples(st.integers(1, 3), st.integers(0, 4)), max_size=6), st.integers(0, 4))
def test_every_token_has_the_version_that_was_in_force_when_it_was_sampled(
    first: int, commits: list[tuple[int, int]], rest: int
) -> None:
    """Against a model that writes the version down for each token: `commits` are (rise, tokens sampled before it)."""
    spans, truth, version = VersionSpans(first), [], first
    spans.begin("a")
    for rise, tokens in commits:
        truth += [version] * tokens
        version += rise
        spans.commit(version, {"a": len(truth)})
    truth += [version] * rest
    found = spans.end("a", len(truth))
    assert [s.version for s in found for _ in range(s.start, s.end)] == truth
    assert all(s.start < s.end for s in found)
    assert [0, *accumulate(s.end - s.start for s in found)] == [*(s.start for s in found), len(truth)]
    assert all(one.version < two.version for one, two in pairwise(found))
