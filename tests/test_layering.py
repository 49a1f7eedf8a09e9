"""Who may import whom (docs/design.md), read from the source without importing it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.project import PACKAGES, ROOT, imports, module, reached, sources

ALLOWED = {
    "common": {"common"},
    "configs": {"configs"},
    "actors": {"actors", "common"},
    "learner": {"learner", "common"},
    "executor": {"executor", "common"},
    "azr": set(PACKAGES),
}
# `common` reads presets from the folder configs as a resource; that is not an import.
HEAVY = {"torch", "vllm", "ray", "deepspeed", "transformers", "wandb"}
INTAKE = ("intake", "admission", "task_book", "journal", "batch", "advantage")
ALL = sources(*PACKAGES, "tests")
LIGHT = [f"learner.{name}" for name in INTAKE] + [module(file) for file in sources("executor")]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_imports_only_the_layers_below_it(package: str) -> None:
    wrong = {
        f"{module(file)} imports {name}"
        for file in sources(package)
        for name in imports(file)
        if name.partition(".")[0] in set(PACKAGES) - ALLOWED[package]
    }
    assert not wrong


@pytest.mark.parametrize("name", LIGHT)
def test_intake_and_executor_processes_never_import_heavy_libraries(name: str) -> None:
    if not any(module(file) == name for file in sources(name.partition(".")[0])):
        pytest.skip(f"{name} does not exist")
    wrong = {f"{parent} imports {found}" for found, parent in reached(name).items() if found in HEAVY}
    assert not wrong


def test_nothing_is_pickled_and_tests_do_not_patch() -> None:
    banned = {"pickle", "cloudpickle", "shelve", "dill", "joblib", "unittest.mock", "mock"}
    assert not {f"{module(file)} imports {name}" for file in ALL for name in imports(file) & banned}


def test_files_are_named_for_what_they_hold_and_stay_readable() -> None:
    assert not [file for file in ALL if file.stem in ("utils", "util", "helpers", "misc")]
    lines = {file: len(file.read_text(encoding="utf-8").splitlines()) for file in ALL}
    assert not {str(file): count for file, count in lines.items() if count > (600 if "tests" in file.parts else 400)}


def test_help_imports_nothing_heavy() -> None:
    probe = (
        "import sys, azr.cli\n"
        "try: azr.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print('|', *sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    printed = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    loaded = set(printed.rpartition("|")[2].split())
    assert "azr" in loaded
    assert not loaded & (HEAVY | {"numpy", "omegaconf", "zmq"})
