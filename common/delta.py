"""The elements of a flat buffer that differ from another one's, as gaps and values: what of a push has to travel.

An entry is a gap, uint16, and a value, one word of the buffer: skip so many words, write the next one. A run of more
than 65,535 unchanged words is bridged by entries that write what is there. Words are as wide as the narrowest number
of the buffer and are compared as bits, so that nothing depends on what they mean: NaNs and signed zeros survive.
A step of RL changes few of the bfloat16 weights (its updates round to nothing in most), but most float32 ones.

Invariants: patched with the delta of (base, new), a buffer that equals base equals new, bit for bit; a delta is smaller
than the buffer. Not guaranteed: that base is what the delta was made against. Receivers compare checksums.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from common.collective import dtype_of
from common.messages import TensorMeta

REACH = 1 << 16  # words that one entry can advance
CHUNK = 1 << 22  # words compared, or entries applied, at a time
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def word_of(metas: Sequence[TensorMeta]) -> int:
    """Bytes of the narrowest number of a buffer: its words have no boundary within a number."""
    return min((dtype_of(meta).itemsize for meta in metas), default=1)


def size_of(entries: int, width: int) -> int:
    """Bytes of so many entries with words of `width` bytes: all gaps, on an even number of words, then all values."""
    return _gaps(entries) + entries * width


def encode(base: Tensor, new: Tensor, width: int) -> tuple[int, Tensor] | None:
    """(entries, their bytes, uint8) that turn `base` into `new`, uint8 [bytes] on one device; None if not smaller.

    Takes there besides: the result twice, and at most 64 bytes per word of a chunk.
    """
    before, after = base.view(_WORDS[width]), new.view(_WORDS[width])
    pairs = zip(_chunks(before), _chunks(after), strict=True)
    least = sum(int(torch.count_nonzero(old != now)) for old, now in pairs)  # cheap, where a delta does not pay
    if size_of(least, width) >= len(new):
        return None
    gaps, values, entries = [], [], 0
    last = -1  # word that the entry before wrote
    for begin in range(0, len(after), CHUNK):
        changed = torch.ne(before[begin : begin + CHUNK], after[begin : begin + CHUNK]).nonzero().view(-1) + begin
        if not len(changed):
            continue
        written = _bridged(changed, last)
        previous = torch.cat((written.new_tensor([last]), written[:-1]))
        gaps.append((written - previous - 1).to(torch.int32).to(torch.int16))  # the low 16 bits
        values.append(after[written])
        last = int(written[-1])
        entries += len(written)
        if size_of(entries, width) >= len(new):
            return None
    out = torch.zeros(size_of(entries, width), dtype=torch.uint8, device=new.device)
    for pieces, words in (
        (gaps, out[: 2 * entries].view(torch.int16)),
        (values, out[_gaps(entries) :].view(_WORDS[width])),
    ):
        if pieces:
            torch.cat(pieces, out=words)
    return entries, out


def patch(buffer: Tensor, entries: int, delta: Tensor, width: int) -> None:
    """Write the `entries` of `delta` into `buffer`. ValueError, with part of it written, if they do not fit."""
    words = buffer.view(_WORDS[width])
    if len(delta) != size_of(entries, width):
        raise ValueError(f"a delta of {entries} entries has {len(delta)} bytes, not {size_of(entries, width)}")
    gaps = delta[: 2 * entries].view(torch.int16)
    values = delta[_gaps(entries) :].view(_WORDS[width])
    last = -1
    for begin in range(0, entries, CHUNK):
        advance = (gaps[begin : begin + CHUNK].to(torch.int64) & (REACH - 1)) + 1
        written = torch.cumsum(advance, 0) + last
        last = int(written[-1])
        if last >= len(words):
            raise ValueError(f"a delta writes word {last} of {len(words)}")
        words[written] = values[begin : begin + CHUNK]


def _gaps(entries: int) -> int:
    """Bytes of the gaps, a multiple of 8: the values behind them are aligned."""
    return -(-2 * entries // 8) * 8


def _bridged(changed: Tensor, last: int) -> Tensor:
    """`changed` [n], ascending, with as many words between as no step needs to be longer than REACH, from `last` on."""
    previous = torch.cat((changed.new_tensor([last]), changed[:-1]))
    fillers = (changed - previous - 1) // REACH
    total = len(changed) + int(fillers.sum())
    if total == len(changed):
        return changed
    ends = torch.cumsum(fillers + 1, 0)
    owner = torch.repeat_interleave(fillers + 1)
    nth = torch.arange(total, device=changed.device) - (ends - fillers - 1)[owner]
    return torch.where(nth < fillers[owner], previous[owner] + REACH * (nth + 1), changed[owner])


def _chunks(words: Tensor) -> Iterator[Tensor]:
    return (words[begin : begin + CHUNK] for begin in range(0, len(words), CHUNK))
