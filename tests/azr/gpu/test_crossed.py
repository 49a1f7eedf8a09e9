"""Tokens beside a seam of versions, held against both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors.engine import Completion
from azr.experiments.gpu.crossed import MOST, Crossed, at_seams, note, read, write
from common.types import Span

PROMPT = np.asarray([5, 6], np.int32)
# Log-probs of tokens 1… of a sequence of two prompt tokens and three of an answer, under versions 0 and 1.
SCORES = [[np.asarray([-9.0, -1.0, -2.0, -3.0], np.float32)], [np.asarray([-9.0, -1.5, -2.5, -4.0], np.float32)]]


def answer(*spans: Span, logprobs: tuple[float, ...] = (-1.0, -2.0, -4.0)) -> Completion:
    return Completion(np.asarray([7, 8, 9], np.int32), np.asarray(logprobs, np.float32), spans, "stop")


def found(*answers: Completion) -> list[Crossed]:
    noted: list[Crossed] = []
    for each in answers:
        note(noted, PROMPT, each)
    return noted


def test_right_versions_are_near_and_the_other_is_far() -> None:
    """The second token is of version 0, the third of 1: 0 from their own, 0.5 and 1 from the other."""
    told = at_seams(found(answer(Span(0, 0, 2), Span(1, 2, 3))), SCORES)
    assert told == {"seams": 1, "own": 0.0, "worst": 0.0, "other": 0.75}


def test_a_version_that_begins_a_token_early_shows() -> None:
    """The first token is right; the second, of version 0, is said to be of 1."""
    told = at_seams(found(answer(Span(0, 0, 1), Span(1, 1, 3))), SCORES)
    assert told["own"] == pytest.approx(0.25) and told["worst"] == pytest.approx(0.5)
    assert told["other"] == pytest.approx(0.25)


def test_answers_of_one_version_and_too_many_are_left_out(tmp_path: Path) -> None:
    assert at_seams(found(answer(Span(0, 0, 3))), [[], []])["seams"] == 0
    many = found(*[answer(Span(0, 0, 2), Span(1, 2, 3))] * (MOST + 1))
    assert len(many) == MOST
    write(tmp_path / "seams.json", many)
    assert read(tmp_path / "seams.json") == many
    assert many[0].sequence.tolist() == [5, 6, 7, 8, 9]
