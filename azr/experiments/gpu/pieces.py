"""A folder as compressed archives, joined and cut into pieces of bounded size, with a manifest that proves them.

Archives are cut between files at ARCHIVE bytes, so that both ends work on several at once; pieces are cut anywhere. The
other end is `unpack.py`, which is copied beside them. Equal folders give equal pieces: order, times and owners of files
do not enter.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import shutil
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from azr.experiments.gpu import unpack

ARCHIVE = 256 << 20  # bytes before compression
PRESET = 9  # of xz: 64 MiB of dictionary; zeros of pruned libraries cost nothing


def pack(folder: Path, out: Path, piece: int, about: dict[str, Any], *, jobs: int = 2) -> list[dict[str, Any]]:
    """Write pieces of at most `piece` bytes, manifest and unpack.py into `out`; the manifest's rows of the pieces.

    `about` goes into the manifest. `jobs` archives are compressed side by side, each in about 700 MiB of memory.
    """
    archives: list[dict[str, Any]] = []
    with (out / "joined").open("wb") as joined, ThreadPoolExecutor(jobs) as pool:
        for number, data in enumerate(pool.map(lambda files: _archive(folder, files), divided(folder))):
            archives.append(
                {
                    "name": f"{number:03}.tar.xz",
                    "offset": joined.tell(),
                    "size": len(data),
                    "sha256": hashlib.sha256(data).hexdigest(),
                }
            )
            joined.write(data)
    with (out / "joined").open("rb") as joined:
        pieces = list(cut(joined, out, piece))
    (out / "joined").unlink()
    manifest = {**about, "pieces": pieces, "archives": archives}
    (out / unpack.MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    shutil.copy(unpack.__file__, out / "unpack.py")
    return pieces


def divided(folder: Path, limit: int = ARCHIVE) -> Iterator[list[Path]]:
    """All files of `folder` in order of their names, in parts of at most `limit` bytes, or of one file."""
    part: list[Path] = []
    size = 0
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        bytes_ = file.stat().st_size
        if part and size + bytes_ > limit:
            yield part
            part, size = [], 0
        part.append(file)
        size += bytes_
    if part:
        yield part


def cut(joined: BinaryIO, out: Path, size: int) -> Iterator[dict[str, Any]]:
    """Copy `joined` into files of `size` bytes, the last one shorter; a row for the manifest of each."""
    number = 0
    while data := joined.read(size):
        name = f"piece-{number:03}"
        (out / name).write_bytes(data)
        yield {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        number += 1


def summary(pieces: Sequence[dict[str, Any]]) -> str:
    sizes = [piece["size"] for piece in pieces]
    return f"{len(sizes)} pieces, {sum(sizes) / 2**20:.1f} MiB, the largest {max(sizes, default=0) / 2**20:.1f} MiB"


def _archive(folder: Path, files: Iterable[Path]) -> bytes:
    compressed = io.BytesIO()
    with lzma.open(compressed, "wb", preset=PRESET) as plain, tarfile.open(fileobj=plain, mode="w|") as tar:
        for file in files:
            tar.add(file, str(file.relative_to(folder)), recursive=False, filter=_anonymous)
    return compressed.getvalue()


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member
