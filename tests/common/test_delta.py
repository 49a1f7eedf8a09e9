import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from common.collective import flatten
from common.delta import REACH, encode, patch, size_of, word_of

WIDTHS = (1, 2, 4, 8)


def patched(base: torch.Tensor, new: torch.Tensor, width: int) -> torch.Tensor | None:
    made = encode(base, new, width)
    if made is None:
        return None
    out = base.clone()
    patch(out, *made, width)
    return out


@settings(deadline=None)
@given(st.sampled_from(WIDTHS), st.integers(1, 5 * REACH), st.integers(0, 2**32), st.data())
def test_a_patched_base_is_the_new_buffer(width: int, words: int, seed: int, data: st.DataObject) -> None:
    random = np.random.default_rng(seed)
    base = torch.from_numpy(random.integers(0, 256, words * width, dtype=np.uint8))
    new = base.clone()
    for position in data.draw(st.lists(st.integers(0, words - 1), max_size=20)):
        new[position * width + width - 1] ^= data.draw(st.integers(1, 255))
    got = patched(base, new, width)
    # A short buffer may be no longer than its delta; here at most 20 words changed, and 5 gaps need fillers.
    assert got is not None or size_of(26, width) > len(new)
    assert got is None or torch.equal(got, new)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 65535), st.integers(0, 65535)), min_size=64, max_size=200))
def test_bits_of_bfloat16_survive(pairs: list[tuple[int, int]]) -> None:
    """Any pattern, those of NaNs, infinities and both zeros included."""
    base, new = (torch.tensor(side, dtype=torch.int32).to(torch.int16) for side in zip(*pairs, strict=True))
    keep = torch.arange(len(pairs)) % 3 > 0
    new = torch.where(keep, base, new)
    got = patched(base.view(torch.uint8), new.view(torch.uint8), 2)
    assert got is not None and torch.equal(got.view(torch.int16), new)


def test_nan_payloads_and_signed_zeros_are_changes() -> None:
    base = torch.tensor([0.0, float("nan"), 1.0, 2.0] + [0.0] * 20).bfloat16()
    new = base.clone()
    new[0] = -0.0
    new.view(torch.int16)[1] += 1  # another NaN
    made = encode(base.view(torch.uint8), new.view(torch.uint8), 2)
    assert made is not None and made[0] == 2


def test_nothing_changed() -> None:
    buffer = torch.arange(100, dtype=torch.uint8)
    made = encode(buffer, buffer.clone(), 2)
    assert made is not None and made[0] == 0 and made[1].numel() == 0
    out = buffer.clone()
    patch(out, *made, 2)
    assert torch.equal(out, buffer)


def test_a_delta_that_is_not_smaller_is_none() -> None:
    """An entry of 2-byte words takes 4 bytes: half of them changed is the limit."""
    base = torch.zeros(1024, dtype=torch.int16)
    for changed, pays in ((1024, False), (512, False), (511, True), (508, True)):
        new = base.clone()
        new[:changed] = 1
        made = encode(base.view(torch.uint8), new.view(torch.uint8), 2)
        assert (made is not None) == (pays and size_of(changed, 2) < 2048)


@pytest.mark.parametrize(
    ("changed", "entries"),
    [
        ([REACH - 1], 1),  # a gap of 65,535
        ([REACH], 2),
        ([0, REACH], 2),
        ([0, REACH + 1], 3),
        ([3 * REACH], 4),
        ([2 * REACH - 1, 4 * REACH - 1], 4),
    ],
)
def test_long_gaps_are_bridged(changed: list[int], entries: int) -> None:
    base = torch.full((5 * REACH,), 7, dtype=torch.int16)
    new = base.clone()
    new[changed] = 9
    made = encode(base.view(torch.uint8), new.view(torch.uint8), 2)
    assert made is not None and made[0] == entries
    out = base.clone()
    patch(out.view(torch.uint8), *made, 2)
    assert torch.equal(out, new)


def test_gaps_reach_over_chunks() -> None:
    from common import delta

    base = torch.zeros(2 * delta.CHUNK + 10, dtype=torch.int16)
    new = base.clone()
    new[[1, delta.CHUNK - 3, delta.CHUNK + 5, 2 * delta.CHUNK + 9]] = torch.tensor([1, 2, 3, 4], dtype=torch.int16)
    got = patched(base.view(torch.uint8), new.view(torch.uint8), 2)
    assert got is not None and torch.equal(got.view(torch.int16), new)


def test_a_delta_that_does_not_fit_is_refused() -> None:
    buffer = torch.zeros(64, dtype=torch.uint8)
    with pytest.raises(ValueError, match="of 3 entries has 8 bytes, not 14"):
        patch(buffer, 3, torch.zeros(8, dtype=torch.uint8), 2)
    beyond = torch.zeros(size_of(1, 2), dtype=torch.uint8)
    beyond[0] = 32
    with pytest.raises(ValueError, match="word 32 of 32"):
        patch(buffer, 1, beyond, 2)


def test_words_are_as_wide_as_the_narrowest_number() -> None:
    for dtypes, width in (((torch.float32,), 4), ((torch.float32, torch.bfloat16), 2), ((torch.int8,), 1), ((), 1)):
        metas, _ = flatten((str(i), torch.zeros(3, dtype=dtype)) for i, dtype in enumerate(dtypes))
        assert word_of(metas) == width
