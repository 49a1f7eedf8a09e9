"""Every preset loads, the published ones hold the published numbers, and packaging files agree with the folders."""

from __future__ import annotations

import configparser
import json
import re
import stat
import struct
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from azr import architecture
from azr.check import examine
from azr.machine import Machine
from azr.memory import GIB
from common.config import Config, load, to_yaml
from tests.project import PACKAGES, ROOT

PRESETS = sorted((ROOT / "configs").glob("*.yaml"))

# Of every run of Absolute Zero (arXiv 2505.03335, table 3, and the published scripts).
PUBLISHED: dict[str, Any] = {
    "model.dtype": "bfloat16",
    "environment.prompts": "paper",
    "environment.references": 6,  # K
    "environment.inputs": 10,
    "environment.shown": 5,
    "environment.message": True,
    "environment.novelty": "off",
    "environment.reject_identity": False,
    "environment.reject_constant": False,
    "algorithm.proposals": 64,
    "algorithm.solves": 64,
    "algorithm.samples": 8,  # n
    "algorithm.solve_samples": 1,
    "algorithm.train_propose": True,
    "algorithm.warmup": 0,
    "algorithm.whiten": "tokens",
    "algorithm.baseline": "stream",
    "algorithm.task_sampling": "max_new",
    "algorithm.reference_sampling": "uniform",
    "algorithm.window": 1,
    "algorithm.book_limit": 16384,
    "algorithm.admit": "all",
    "algorithm.extreme_reward": -0.5,
    "algorithm.invalid_reward": -1.0,
    "algorithm.stream_weight": "tokens",
    "engine.max_tokens": 8096,
    "engine.max_model_len": 8096 + 6144,
    "executor.cpu_limit": 10.0,
    "executor.strict": False,
    "learner.steps": 500,
    "learner.lr": 1e-6,
    "learner.warmup_steps": 0,
    "learner.betas": (0.9, 0.999),
    "learner.weight_decay": 0.01,
    "learner.grad_clip": 1.0,
    "learner.loss": "ppo",
    "learner.clip": 0.2,
    "learner.save_every": 10,
    "eval.every": 10,
    "eval.temperature": 0.0,
}
# Other than published: each is named in the preset.
OURS: dict[str, Any] = {"algorithm.train_mc": 8, "staleness.eta": 2}
# preset: repository on Hugging Face, seed tasks per type, GPUs of 80 GiB
SIZES = {
    "3b-coder": ("Qwen/Qwen2.5-Coder-3B", 256, 2),
    "7b-base": ("Qwen/Qwen2.5-7B", 256, 4),
    "7b-coder": ("Qwen/Qwen2.5-Coder-7B", 256, 4),
    "14b-coder": ("Qwen/Qwen2.5-Coder-14B", 256, 8),
    "llama3.1-8b": ("meta-llama/Llama-3.1-8B", 64, 4),
}
# config.json of Qwen/Qwen2.5-0.5B, as far as memory depends on it.
HALF = {
    "num_hidden_layers": 24,
    "hidden_size": 896,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "intermediate_size": 4864,
    "vocab_size": 151_936,
    "max_position_embeddings": 32_768,
}
SERVER = Machine("linux", 64, 1024 * GIB, 1024 * GIB, seccomp=True, compiler="/usr/bin/c++", headers=True, ninja=True)


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


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.name)
def test_presets_of_gpus_and_they_alone_pack(preset: Path) -> None:
    config = load(preset)
    assert config.learner.packing == (config.cluster.placement != "cpu")


def test_the_default_preset_exists() -> None:
    assert ROOT / "configs" / "tiny.yaml" in PRESETS


@pytest.mark.parametrize("name", SIZES)
def test_a_published_size_has_the_published_numbers(name: str) -> None:
    config = load(f"{name}.yaml")
    repository, seeds, _ = SIZES[name]
    expected = {
        **PUBLISHED,
        **OURS,
        "model.path": f"models/{repository.partition('/')[2]}",
        "seeds.tasks": seeds,
    }
    assert {key: attrgetter(key)(config) for key in expected} == expected


@pytest.mark.parametrize("name", SIZES)
def test_a_published_size_says_how_to_fetch_it_and_how_it_departs(name: str) -> None:
    text = (ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8")
    repository, _, _ = SIZES[name]
    model = architecture.published(Path(load(f"{name}.yaml").model.path))
    assert model is not None and model.repository == repository
    assert f"hf download {repository} --local-dir models/{repository.partition('/')[2]}" in text
    comments = " ".join(line for line in text.splitlines() if line.startswith("#"))
    assert all(key in comments for key in OURS)


@pytest.mark.parametrize("name", SIZES)
def test_a_published_size_lacks_only_its_model_where_it_was_published(name: str, tmp_path: Path) -> None:
    repository, _, gpus = SIZES[name]
    config = load(f"{name}.yaml", [f"model.path={tmp_path / repository.partition('/')[2]}"])
    full = examine(config, SERVER, free_gpus=lambda: (80 * GIB,) * gpus)
    (folder,) = full.errors
    assert folder.text == f"there is no model folder {config.model.path}"
    assert any("has 1 GPUs" in error.text for error in examine(config, SERVER, free_gpus=lambda: (80 * GIB,)).errors)
    assert any("40.0" in e.text for e in examine(config, SERVER, free_gpus=lambda: (40 * GIB,) * gpus).errors)


def test_one_gpu_is_enough_for_the_preset_of_one_gpu(tmp_path: Path) -> None:
    """80 GiB and a machine of 12 cores and 64 GiB; with the model that its first lines make."""
    folder = tmp_path / "qwen-0.5b-random"
    folder.mkdir()
    header = json.dumps({"all": {"shape": [494_032_768]}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "tokenizer.json").write_text("{}")
    (folder / "config.json").write_text(json.dumps(HALF))
    config = load("one-gpu.yaml", [f"model.path={folder}"])
    machine = replace(SERVER, cores=12, memory=64 * GIB, disk=64 * GIB)
    found = examine(config, machine, free_gpus=lambda: (80 * GIB,))
    assert found.findings == () and found.gpus is not None and found.gpus.count == 1
    both = found.gpus.learner.total + found.gpus.engine.total
    assert examine(config, machine, free_gpus=lambda: (both,)).findings == ()
    (lack,) = examine(config, machine, free_gpus=lambda: (both - 1,)).errors
    assert "a rank and an engine each" in lack.text


def test_every_published_size_has_a_preset() -> None:
    assert {f"{name}.yaml" for name in SIZES} <= {path.name for path in PRESETS}
    assert {repository.partition("/")[2] for repository, _, _ in SIZES.values()} == set(architecture.names())


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
