"""Every preset loads, and the packaging files agree with the folders."""

from __future__ import annotations

import configparser
import re
import stat
from pathlib import Path

import pytest

from common.config import Config, load, to_yaml
from tests.project import PACKAGES, ROOT

PRESETS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.name)
def test_every_preset_loads(preset: Path) -> None:
    assert isinstance(load(preset), Config)


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.name)
def test_the_resolved_configuration_loads_as_the_same(preset: Path, tmp_path: Path) -> None:
    config = load(preset)
    written = tmp_path / "config.yaml"
    written.write_text(to_yaml(config), encoding="utf-8")
    assert load(written) == config
    assert load(written).digest == config.digest


def test_the_default_preset_exists() -> None:
    assert ROOT / "configs" / "tiny.yaml" in PRESETS


def test_setup_lists_exactly_the_packages_that_exist() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    listed = setup["options.packages.find"]["include"].split()
    folders = {file.parent.name for file in ROOT.glob("*/__init__.py")} - {"tests"}
    assert {name for name in listed if not name.endswith(".*")} == folders == set(PACKAGES)
    nested = {file.parent.parent.name for file in ROOT.glob("*/*/__init__.py")} - {"tests"}
    assert nested == {name.removesuffix(".*") for name in listed if name.endswith(".*")}


def test_every_folder_with_python_files_is_a_package() -> None:
    folders = {file.parent for package in (*PACKAGES, "tests") for file in (ROOT / package).rglob("*.py")}
    assert [folder for folder in sorted(folders) if not (folder / "__init__.py").exists()] == []


def test_requirements_are_pinned_and_agree() -> None:
    pins = {name: _pins(ROOT / "requirements" / f"{name}.txt") for name in ("cpu", "cuda", "dev", "constraints")}
    shared = pins["cpu"].keys() & pins["cuda"].keys()
    assert shared and all(pins["cpu"][name] == pins["cuda"][name] for name in shared)
    for file in ("cpu", "dev"):
        for name, version in pins[file].items():
            assert name == "torch" or pins["constraints"][name] == version


@pytest.mark.parametrize("name", ["LICENSE", "Makefile", "setup.cfg", "pyproject.toml"])
def test_root_files_exist(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize("name", ["scripts/setup", ".ci/run"])
def test_scripts_are_executable_and_stop_at_the_first_error(name: str) -> None:
    file = ROOT / name
    assert file.stat().st_mode & stat.S_IXUSR
    assert "\nset -euo pipefail\n" in file.read_text(encoding="utf-8")


def _pins(file: Path) -> dict[str, str]:
    lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    pins = [re.fullmatch(r"([A-Za-z0-9_.-]+)==(\S+)", line) for line in lines]
    assert all(pins), f"not pinned in {file.name}: {[line for line, pin in zip(lines, pins, strict=True) if not pin]}"
    return {re.sub(r"[-_.]+", "-", pin[1]).lower(): pin[2] for pin in pins if pin}
