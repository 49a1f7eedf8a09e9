"""Join the pieces of a bundle, verify them and lay its packages out: `python unpack.py TARGET [FOLDER]`.

The standard library alone, for it travels with the pieces. FOLDER (default: where this file lies) holds manifest.json
and all pieces, whatever way they came. Nothing is written to TARGET before every piece has agreed with its SHA-256. The
manifest itself is believed: check it, or the way it came, if that matters.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import lzma
import os
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

MANIFEST = "manifest.json"


class Damaged(Exception):
    """Pieces are missing or not what the manifest says."""


def unpack(folder: Path, target: Path) -> int:
    """Lay the bundle in `folder` out in `target`; how many files. Raises Damaged, before anything is written."""
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    joined = join(folder, manifest["pieces"])
    for archive in manifest["archives"]:
        part = joined[archive["offset"] : archive["offset"] + archive["size"]]
        if hashlib.sha256(part).hexdigest() != archive["sha256"]:
            raise Damaged(f"archive {archive['name']} is not what the manifest says")
    target.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:  # decompression leaves the interpreter free
        parts = [(joined[a["offset"] : a["offset"] + a["size"]], target) for a in manifest["archives"]]
        return sum(pool.map(lambda part: _extract(*part), parts))


def join(folder: Path, pieces: list[dict[str, Any]]) -> memoryview:
    """All pieces in order. Raises Damaged naming every one that is missing or wrong."""
    found, wrong = [], []
    for piece in pieces:
        path = folder / piece["name"]
        data = path.read_bytes() if path.is_file() else None
        if data is None:
            wrong.append(f"{piece['name']} is missing")
        elif hashlib.sha256(data).hexdigest() != piece["sha256"]:
            wrong.append(f"{piece['name']} is damaged ({len(data)} bytes of {piece['size']})")
        else:
            found.append(data)
    if wrong:
        raise Damaged("; ".join(wrong))
    return memoryview(b"".join(found))


def _extract(archive: memoryview, target: Path) -> int:
    with lzma.open(io.BytesIO(archive)) as plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        count = 0
        for member in tar:
            tar.extract(member, target, filter="data")
            count += 1
        return count


def main() -> int:
    parser = argparse.ArgumentParser(description="Join, verify and lay out a bundle of Python packages.")
    parser.add_argument("target", type=Path, help="where to; put it on PYTHONPATH afterwards")
    parser.add_argument("folder", type=Path, nargs="?", default=Path(__file__).resolve().parent)
    parsed = parser.parse_args()
    try:
        count = unpack(parsed.folder, parsed.target)
    except (Damaged, FileNotFoundError) as error:
        print(f"unpack: {error}", file=sys.stderr)
        return 1
    print(f"unpack: {count} files in {parsed.target}; now: export PYTHONPATH={parsed.target.resolve()}:$PYTHONPATH")
    return 0


if __name__ == "__main__":
    sys.exit(main())
