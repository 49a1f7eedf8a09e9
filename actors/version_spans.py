"""Which version of the weights sampled which tokens of an answer, from where the answers were at each commit.

vLLM tells it itself from 0.32 on; before, nobody does. So it is counted here, in one way for all versions: at a commit
decoding stands still, and every request is told to go on under the new version from the token it has reached.

Invariant: the spans of an answer are in order, none is empty, and they cover [0, T) without gaps. They are right if the
counts given to `commit` are those of tokens that were really sampled before it. One thread uses an object.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

from common.types import Span


class VersionSpans:
    """`version` samples the first token."""

    def __init__(self, version: int) -> None:
        self._version = version
        self._starts: dict[str, list[tuple[int, int]]] = {}  # request → (version, its first token)

    def begin(self, request: str) -> None:
        """`request` is about to be submitted."""
        self._starts[request] = [(self._version, 0)]

    def commit(self, version: int, sampled: Mapping[str, int]) -> None:
        """From now on `version` samples. `sampled`: tokens so far, by request; one that is missing has none."""
        self._version = version
        for request, starts in self._starts.items():
            starts.append((version, sampled.get(request, 0)))

    def end(self, request: str, tokens: int) -> tuple[Span, ...]:
        """The spans of `request`, whose answer has `tokens`; it is forgotten."""
        starts = self._starts.pop(request)
        assert starts[-1][1] <= tokens, (starts, tokens)
        return tuple(
            Span(version, begin, end)
            for (version, begin), (_, end) in pairwise([*starts, (self._version, tokens)])
            if begin < end
        )

    def drop(self, request: str) -> None:
        """`request` ends without an answer. Harmless if it has ended."""
        self._starts.pop(request, None)
