"""Packages for a machine without a network, as pieces that can be carried.

    python -m azr.experiments.gpu.bundle OUT --python 3.12 --platform manylinux_2_28_x86_64 \\
        --have torch==2.11.0,transformers==5.17.0 --piece-mb 60 -r requirements.txt vllm==0.26.0
    python unpack.py TARGET          there, beside the pieces; then PYTHONPATH=TARGET

`@FILE` stands for the arguments in FILE, one or more a line; # begins a comment. What the machine has is neither
carried nor chosen anew. Wheels come through pip; a package that has none is built here, and taken if it holds no
compiled code. Downloads are kept in OUT/wheels, so a second try is quick. docs/gpu.md has examples.

Not guaranteed: that what is carried runs. Needs that are left open are printed and stand in the manifest.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path

from azr.cli import run
from azr.experiments.gpu import fatbin, packages, pieces
from azr.experiments.gpu.packages import Target
from common.errors import ConfigError, PartFailed

DOWNLOADS = 4  # at a time


def bundle(
    out: Path,
    target: Target,
    requirements: Sequence[str],
    *,
    have: Mapping[str, str],
    beside: Sequence[str] = (),
    without: Sequence[str] = (),
    drop: Sequence[str] = (),
    architecture: int = 0,
    piece: int,
    say: Callable[[str], None],
) -> None:
    """Write the pieces of what `target` lacks for `requirements` into `out`.

    `beside`: NAME==VERSION taken in any case, without needs. `without`: packages left out, with what only they need.
    `drop`: patterns of files left out. `architecture`: of the one GPU whose machine code is kept; 0 keeps all.
    """
    if (out / "manifest.json").exists():
        raise ConfigError(f"{out} holds a bundle: name another folder, or remove it")
    resolved = packages.resolve(requirements, target, have, without) if requirements else {}
    lacking = [*packages.specifications(packages.missing(resolved, have)), *beside]
    say(f"{len(resolved)} packages are needed, {len(lacking)} of them are not there")
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        wheels = list(pool.map(lambda pin: wheel(pin, target, out / "wheels"), lacking))
    open_needs = packages.unmet(wheels, target, have)
    for need in open_needs:
        say(f"open: {need}")
    folder = out / "packages"
    shutil.rmtree(folder, ignore_errors=True)
    install(wheels, target, folder)
    for file in [path for path in folder.rglob("*") if path.is_file()]:
        name = str(file.relative_to(folder))
        if any(fnmatch(name, pattern) for pattern in drop):
            file.unlink()
        elif architecture and ".so" in file.name and (zeroed := fatbin.prune(file, architecture)):
            say(f"{name}: {zeroed >> 20} MiB for other GPUs left out")
    say("compressing")
    about = {
        "made": time.strftime("%Y-%m-%d"),
        "python": target.python,
        "platform": target.platform,
        "architecture": f"sm_{architecture}" if architecture else "all",
        "packages": sorted(path.name for path in wheels),
        "open": open_needs,
    }
    rows = pieces.pack(folder, out, piece, about)
    shutil.rmtree(folder)
    say(f"{pieces.summary(rows)}: {out}")


def wheel(specification: str, target: Target, folder: Path) -> Path:
    """The wheel of NAME==VERSION for `target`, downloaded or built. PartFailed if there is neither."""
    into = folder / specification
    if not (found := list(into.glob("*.whl"))):
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
        download = [*pip, "download", "--no-deps", *target.for_pip, "-d", str(into), specification]
        done = subprocess.run(download, capture_output=True, text=True, check=False)
        if done.returncode:
            build = [*pip, "wheel", "--no-deps", "-w", str(into), specification]
            built = subprocess.run(build, capture_output=True, text=True, check=False)
            if built.returncode:
                raise PartFailed("bundle", f"{specification}: {done.stderr.strip()}\n{built.stderr.strip()}")
        found = list(into.glob("*.whl"))
    (path,) = found
    if not path.stem.endswith("-none-any") and not path.stem.endswith(f"_{target.machine}"):
        raise PartFailed("bundle", f"{path.name} is not for {target.platform}")
    return path


def install(wheels: Sequence[Path], target: Target, folder: Path) -> None:
    """Lay `wheels` out in `folder` as pip does, for a machine that is not this one."""
    command = [
        *(sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install", "--no-deps", "--no-index"),
        *("--no-compile", "--no-cache-dir", "--target", str(folder), *target.for_pip, *map(str, wheels)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PartFailed("bundle", f"pip did not install the wheels: {done.stderr.strip()}")


class _Parser(argparse.ArgumentParser):
    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        return arg_line.partition("#")[0].split()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = _Parser(
        prog="python -m azr.experiments.gpu.bundle",
        description="Packages for a machine without a network, as pieces.",
        fromfile_prefix_chars="@",
    )
    parser.add_argument("out", type=Path, metavar="OUT")
    parser.add_argument("requirements", nargs="*", metavar="NAME==VERSION")
    parser.add_argument("-r", dest="files", action="append", default=[], type=Path, metavar="FILE")
    parser.add_argument("--python", default="3.12", help="of the machine (default: %(default)s)")
    parser.add_argument("--platform", default="manylinux_2_28_x86_64", help="default: %(default)s")
    parser.add_argument("--have", action="append", default=[], metavar="NAME[==VERSION],...", help="what is there")
    parser.add_argument("--have-file", action="append", default=[], type=Path, help="the same: what pip freeze printed")
    parser.add_argument("--beside", action="append", default=[], metavar="NAME==VERSION,...", help="carry in any case")
    parser.add_argument("--without", action="append", default=[], metavar="NAME,...", help="never carry")
    parser.add_argument("--drop", action="append", default=[], metavar="PATTERN", help="files to leave out")
    parser.add_argument("--sm", type=int, default=0, metavar="90", help="keep machine code of this GPU alone")
    parser.add_argument("--piece-mb", type=float, default=60, help="largest piece in MiB (default: %(default)s)")
    return parser.parse_intermixed_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    parsed = _parse(arguments)

    def command() -> int:
        wanted = [*parsed.requirements]
        for file in parsed.files:
            wanted += [line for line in file.read_text(encoding="utf-8").splitlines() if line.partition("#")[0].strip()]
        have = packages.pins("\n".join([*parsed.have, *(file.read_text() for file in parsed.have_file)]))
        parsed.out.mkdir(parents=True, exist_ok=True)
        bundle(
            parsed.out,
            Target(parsed.python, parsed.platform),
            wanted,
            have=have,
            beside=list(packages.specifications(packages.pins("\n".join(parsed.beside)))),
            without=list(packages.pins("\n".join(parsed.without))),
            drop=parsed.drop,
            architecture=parsed.sm,
            piece=int(parsed.piece_mb * 2**20),
            say=lambda line: print(f"bundle: {line}", file=sys.stderr, flush=True),
        )
        return 0

    return run(command)


if __name__ == "__main__":
    sys.exit(main())
