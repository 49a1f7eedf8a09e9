import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from common.checksum import WORDS, checksum


def words(count: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(count).integers(-(2**31), 2**31, count).astype(np.int32))


def of(values: torch.Tensor) -> str:
    return checksum(values.view(torch.uint8))


@given(st.integers(1, 40), st.data())
def test_a_bit_that_flips_and_words_that_change_places_are_seen(count: int, data: st.DataObject) -> None:
    before = words(count)
    position, bit = data.draw(st.integers(0, 4 * count - 1)), data.draw(st.integers(0, 7))
    flipped = before.view(torch.uint8).clone()
    flipped[position] ^= 1 << bit
    assert checksum(flipped) != of(before) == of(before.clone())
    i, j = data.draw(st.integers(0, count - 1)), data.draw(st.integers(0, count - 1))
    swapped = before.clone()
    swapped[[i, j]] = before[[j, i]]
    assert (of(swapped) == of(before)) == torch.equal(swapped, before)


@pytest.mark.parametrize("positions", [(0, WORDS), (5, 2 * WORDS + 5), (WORDS - 1, 3 * WORDS)])
def test_words_of_different_rows_that_change_places_are_seen(positions: tuple[int, int]) -> None:
    before = words(3 * WORDS + 7)
    after = before.clone()
    after[list(positions)] = before[list(positions[::-1])]
    assert of(after) != of(before)


def test_rows_that_change_places_are_seen() -> None:
    rows = words(2 * WORDS).view(2, WORDS)
    assert of(rows.flip(0).contiguous().view(-1)) != of(rows.view(-1))


def test_zeros_count() -> None:
    assert len({of(torch.zeros(count, dtype=torch.int32)) for count in (0, 1, 2, WORDS, WORDS + 1)}) == 5


def test_it_is_the_sum_that_it_says() -> None:
    from common.checksum import _multipliers

    first, keys = _multipliers(3, 0).tolist(), _multipliers(2, 1).tolist()
    inner = 7 * first[0] - 2 * first[1] + 5 * first[2]
    assert of(torch.tensor([7, -2, 5], dtype=torch.int32)) == f"{(keys[0] * inner + keys[1] * 3) % 2**64:016x}"
