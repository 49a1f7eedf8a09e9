"""Fat binaries written by hand, byte for byte as NVIDIA's tools lay them out."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from azr.experiments.gpu.fatbin import CUBIN, MAGIC, PTX, entries, prune


def entry(kind: int, architecture: int, payload: bytes, header: int = 64) -> bytes:
    head = struct.pack("<HHIQ", kind, 0x101, header, len(payload)).ljust(0x1C, b"\0")
    return (head + struct.pack("<I", architecture)).ljust(header, b"\0") + payload


def fat(*parts: bytes) -> bytes:
    body = b"".join(parts)
    return MAGIC + struct.pack("<HHQ", 1, 16, len(body)) + body


OURS, OLD, NEW = entry(CUBIN, 90, b"sm90" * 4), entry(CUBIN, 80, b"sm80" * 8), entry(CUBIN, 100, b"sm100" * 3)
PTX_OLD, PTX_NEW = entry(PTX, 80, b"ptx80" * 5), entry(PTX, 100, b"ptx100" * 5)


def test_only_what_the_gpu_runs_stays_and_nothing_moves(tmp_path: Path) -> None:
    library = tmp_path / "lib.so"
    before = b"\x7fELF host code " + fat(OLD, OURS, PTX_OLD) + b"between" + fat(NEW, PTX_NEW) + b"tail"
    library.write_bytes(before)
    assert prune(library, 90) == 8 * 4 + 3 * 5 + 5 * 6
    after = library.read_bytes()
    assert len(after) == len(before)
    assert b"sm90" * 4 in after and b"ptx80" * 5 in after and b"between" in after
    assert not any(word in after for word in (b"sm80", b"sm100", b"ptx100"))
    assert [(e.kind, e.architecture) for e in entries(after)] == [(e.kind, e.architecture) for e in entries(before)]
    assert (
        prune(library, 90) == 8 * 4 + 3 * 5 + 5 * 6 and library.read_bytes() == after
    )  # a second time changes nothing


@pytest.mark.parametrize(("gpu", "left"), [(86, {b"sm80"}), (80, {b"sm80"}), (90, {b"sm90"}), (100, {b"sm100"})])
def test_a_cubin_runs_within_its_major_architecture(tmp_path: Path, gpu: int, left: set[bytes]) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(fat(OLD, OURS, NEW))
    prune(library, gpu)
    assert {word for word in (b"sm80", b"sm90", b"sm100") if word in library.read_bytes()} == left


@pytest.mark.parametrize(
    "data",
    [
        b"no CUDA in here",
        MAGIC,
        MAGIC + struct.pack("<HHQ", 1, 16, 1 << 40),  # longer than the file
        MAGIC + struct.pack("<HHQ", 2, 16, 4) + b"abcd",  # of another version
        fat(OLD, entry(7, 80, b"a kind nobody knows")),
        fat(OLD, entry(CUBIN, 80, b"x" * 100)[:-1]),
        fat(OLD, b"cut"),
    ],
)
def test_what_does_not_read_exactly_is_left_alone(tmp_path: Path, data: bytes) -> None:
    library = tmp_path / "lib.so"
    library.write_bytes(data)
    assert prune(library, 90) == 0
    assert library.read_bytes() == data


@given(st.binary(max_size=200))
def test_no_bytes_make_it_fail_otherwise(noise: bytes) -> None:
    for data in (noise, MAGIC + noise, fat(noise)):
        try:
            list(entries(data))
        except ValueError:
            pass
