"""Which packages a machine lacks for some requirements, and what they still miss: from metadata, without that machine.

uv resolves for the machine's Python and platform. What is there is not up for choice: its version holds against the
pins of others, and what that breaks is told (`unmet`), since many pins are stricter than they need to be. What is left
out on purpose is left out with everything that only it needs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.parser import HeaderParser
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from common.errors import ConfigError, PartFailed

_PLATFORM = re.compile(r"manylinux_2_(\d+)_(\w+)")
_OLD_NAMES = {5: "manylinux1", 12: "manylinux2010", 17: "manylinux2014"}  # by the glibc that they mean


@dataclass(frozen=True, slots=True)
class Target:
    """`python`: as 3.12; `platform`: the newest that the machine takes, as manylinux_2_28_x86_64."""

    python: str
    platform: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"3\.\d+", self.python):
            raise ConfigError(f"--python {self.python}: write it as 3.12")
        if not _PLATFORM.fullmatch(self.platform):
            raise ConfigError(f"--platform {self.platform}: write it as manylinux_2_28_x86_64")

    @property
    def glibc(self) -> int:
        return int(self._parts[0])

    @property
    def machine(self) -> str:
        return self._parts[1]

    @property
    def platforms(self) -> list[str]:
        """Every tag of wheels that run there, newest first."""
        tags = []
        for glibc in range(self.glibc, 4, -1):
            tags.append(f"manylinux_2_{glibc}_{self.machine}")
            tags += [f"{_OLD_NAMES[glibc]}_{self.machine}"] if glibc in _OLD_NAMES else []
        return tags

    @property
    def for_uv(self) -> list[str]:
        return ["--python-version", self.python, "--python-platform", f"{self.machine}-manylinux_2_{self.glibc}"]

    @property
    def for_pip(self) -> list[str]:
        tags = [word for tag in self.platforms for word in ("--platform", tag)]
        return ["--python-version", self.python, "--implementation", "cp", "--only-binary=:all:", *tags]

    @property
    def markers(self) -> dict[str, str]:
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
            "platform_machine": self.machine,
            "platform_system": "Linux",
            "sys_platform": "linux",
            "os_name": "posix",
            "extra": "",
        }

    @property
    def _parts(self) -> Sequence[str]:
        found = _PLATFORM.fullmatch(self.platform)
        assert found
        return found.groups()


def pins(text: str) -> dict[str, str]:
    """Canonical name to version of lines (or words, or a comma's parts) NAME==VERSION; "" where none is named."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        for word in re.split(r"[,\s]+", line.partition("#")[0].strip()):
            if word:
                name, _, version = word.partition("==")
                found[canonicalize_name(name)] = version
    return found


def resolve(
    requirements: Iterable[str], target: Target, have: Mapping[str, str], without: Iterable[str]
) -> dict[str, str]:
    """Version of everything that `requirements` need on `target`, what it has included. PartFailed if uv finds none."""
    if find_spec("uv") is None:
        raise PartFailed(
            "bundle", "uv is not there, and resolves what is needed", hint="make setup, or: pip install uv"
        )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "in").write_text("\n".join(requirements), encoding="utf-8")
        (folder / "have").write_text("\n".join(f"{n}=={v}" for n, v in have.items() if v), encoding="utf-8")
        (folder / "without").write_text("\n".join(without), encoding="utf-8")
        command = [
            *(sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-header", "--no-annotate"),
            *("--overrides", str(folder / "have"), "--excludes", str(folder / "without")),
            *(*target.for_uv, str(folder / "in")),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PartFailed("bundle", f"these requirements cannot be met together:\n{done.stderr.strip()}")
    return pins(re.sub(r" *;.*", "", done.stdout))


def missing(resolved: Mapping[str, str], have: Mapping[str, str]) -> dict[str, str]:
    """Of what was resolved, that which the machine has not."""
    return {name: version for name, version in resolved.items() if name not in have}


def unmet(wheels: Iterable[Path], target: Target, have: Mapping[str, str]) -> list[str]:
    """Each need of `wheels` that neither they nor `have` meet, as text. Versions that are not known pass."""
    metadata = {path: _metadata(path) for path in wheels}
    held = dict(have) | {name: version for name, version, _ in metadata.values()}
    found = []
    for name, version, needs in metadata.values():
        for need in needs:
            if need.marker is not None and not need.marker.evaluate(target.markers):
                continue
            there = held.get(canonicalize_name(need.name))
            if there is None:
                found.append(f"{name} {version} needs {need.name}{need.specifier}, which is not there")
            elif there and not need.specifier.contains(there, prereleases=True):
                found.append(f"{name} {version} needs {need.name}{need.specifier}, and there is {there}")
    return sorted(found)


def _metadata(wheel: Path) -> tuple[str, str, list[Requirement]]:
    """(canonical name, version, needs)."""
    with zipfile.ZipFile(wheel) as archive:
        (file,) = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        headers = HeaderParser().parsestr(archive.read(file).decode())
    needs = [Requirement(line) for line in headers.get_all("Requires-Dist", [])]
    return canonicalize_name(headers["Name"]), headers["Version"], needs


def specifications(found: Mapping[str, str]) -> Iterator[str]:
    yield from (f"{name}=={version}" if version else name for name, version in found.items())
