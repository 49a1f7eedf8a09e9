"""Leave one GPU's machine code in a shared object: what is for others becomes zeros, which compress to nothing.

A CUDA library holds its kernels once for every architecture, in "fat binaries": a header (magic, version, header size,
bytes that follow) and entries, each with a header of its own (kind, version, header size, bytes, …, architecture at
0x1c) and a PTX text or a cubin. Sizes and headers stay as they are, so nothing moves; only payloads are overwritten.

Kept are cubins that the GPU runs (same major architecture, minor not above its own) and PTX that its driver may compile
(architecture not above its own). A file whose fat binaries do not read exactly so is left alone: NVIDIA does not
document the format. Not guaranteed: that a library which refuses to load a cubin it does not run accepts zeros there.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

MAGIC = struct.pack("<I", 0xBA55ED50)
_HEADER = struct.Struct("<4sHHQ")  # magic, version, header size, bytes behind the header
_ENTRY = struct.Struct("<HHIQ")  # kind, version, header size, bytes behind the header
_ARCHITECTURE = 0x1C  # where an entry's header has it, as uint32
PTX, CUBIN = 1, 2


@dataclass(frozen=True, slots=True)
class Entry:
    """PTX or a cubin for `architecture` (90 is sm_90), whose payload is data[start:end]."""

    kind: int
    architecture: int
    start: int
    end: int

    def runs_on(self, architecture: int) -> bool:
        alike = self.kind == PTX or self.architecture // 10 == architecture // 10
        return alike and self.architecture <= architecture


def prune(path: Path, architecture: int) -> int:
    """Zero in `path` what a GPU of `architecture` does not use; how many bytes that were. 0 if it cannot be read."""
    data = bytearray(path.read_bytes())
    if MAGIC not in data:
        return 0
    try:
        idle = [entry for entry in entries(data) if not entry.runs_on(architecture)]
    except ValueError:
        return 0
    for entry in idle:
        data[entry.start : entry.end] = bytes(entry.end - entry.start)
    if idle:
        path.write_bytes(data)
    return sum(entry.end - entry.start for entry in idle)


def entries(data: bytes | bytearray) -> Iterator[Entry]:
    """Those of every fat binary in `data`. ValueError if one does not end where its entries do.

    The magic number may occur by chance: what no version-1 header follows, or does not fit, is no fat binary.
    """
    at = data.find(MAGIC)
    while at >= 0:
        if at + _HEADER.size > len(data):
            return
        _, version, header, size = _HEADER.unpack_from(data, at)
        if version != 1 or header != _HEADER.size or at + header + size > len(data):
            at = data.find(MAGIC, at + len(MAGIC))
            continue
        yield from _within(data, at + header, at + header + size)
        at = data.find(MAGIC, at + header + size)


def _within(data: bytes | bytearray, at: int, end: int) -> Iterator[Entry]:
    while at < end:
        if at + _ARCHITECTURE + 4 > end:
            raise ValueError(f"an entry at {at} is cut")
        kind, _, header, size = _ENTRY.unpack_from(data, at)
        (architecture,) = struct.unpack_from("<I", data, at + _ARCHITECTURE)
        if kind not in (PTX, CUBIN) or header < _ARCHITECTURE + 4 or at + header + size > end:
            raise ValueError(f"no entry of a known kind at {at}")
        yield Entry(kind, architecture, at + header, at + header + size)
        at += header + size
