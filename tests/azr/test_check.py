"""What `azr check` finds, on machines and in model folders made up for the purpose."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from azr.check import Examination, examine, report
from azr.footprint import GIB, MIB, NUMBER, trainer_memory
from azr.machine import Machine, inspect
from azr.model_folder import TINY, Shape, missing, shape
from common.config import Config, load
from common.errors import PartFailed

ROOMY = Machine("linux", 8, 64 * GIB, 100 * GIB, seccomp=True, compiler="/usr/bin/c++", headers=True, ninja=True)


def tiny(*overrides: str, folder: str | Path = "/nowhere/tiny") -> Config:
    return load("tiny.yaml", [f"model.path={folder}", *overrides])


def texts(result: Examination, *, fatal: bool) -> list[str]:
    return [finding.text for finding in result.findings if finding.fatal is fatal]


def model(folder: Path, *, shards: int = 1, **changes: Any) -> Path:
    """A model folder as Hugging Face lays it out, with headers that promise tensors of 10 + 6 numbers per shard."""
    folder.mkdir()
    config = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "vocab_size": 460, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    (folder / "heldout.jsonl").write_text("")
    header = json.dumps({"__metadata__": {"format": "pt"}, "a": {"shape": [2, 5]}, "b": {"shape": [6]}}).encode()
    if shards == 1:
        (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    else:
        names = [f"model-{i}.safetensors" for i in range(shards)]
        for name in names:
            (folder / name).write_bytes(struct.pack("<Q", len(header)) + header)
        index = {"weight_map": {f"{name}.{tensor}": name for name in names for tensor in "ab"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def test_a_model_that_will_be_built_on_a_roomy_machine_has_no_findings() -> None:
    result = examine(tiny(), ROOMY)
    assert (result.findings, result.shape) == ((), TINY)
    assert {process.name for process in result.processes} == {"driver", "ray", "intake", "executor", "actor", "trainer"}
    assert 2 * GIB < result.memory < 5 * GIB


def test_a_folder_is_measured_without_loading_it(tmp_path: Path) -> None:
    found = shape(model(tmp_path / "model", shards=3, max_position_embeddings=512))
    assert found == Shape(48, layers=2, hidden=128, heads=4, kv_heads=4, head_dim=32, vocabulary=460, positions=512)
    assert found.kv_bytes(NUMBER) == 2 * 2 * 4 * 32 * 4


def test_a_missing_folder_is_an_error_unless_it_will_be_built() -> None:
    (text,) = texts(examine(tiny("model.build=false"), ROOMY), fatal=True)
    assert "there is no model folder /nowhere/tiny" in text


def test_more_processes_than_logical_cpus_is_an_error() -> None:
    (text,) = texts(examine(tiny("engine.actors=6"), ROOMY), fatal=True)
    assert "ask Ray for 2.3 logical CPUs and cluster.cpus=2" in text


def test_evaluation_needs_held_out_tasks(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (folder / "heldout.jsonl").unlink()
    (text,) = texts(examine(tiny(folder=folder), ROOMY), fatal=True)
    assert "heldout.jsonl" in text


@pytest.mark.parametrize(
    ("removed", "named"),
    [("config.json", "config.json"), ("tokenizer.json", "a tokenizer"), ("model.safetensors", "weights")],
)
def test_an_incomplete_folder_names_what_it_lacks(tmp_path: Path, removed: str, named: str) -> None:
    folder = model(tmp_path / "model")
    assert missing(folder) == []
    (folder / removed).unlink()
    (text,) = texts(examine(tiny(folder=folder), ROOMY), fatal=True)
    assert named in text and str(folder) in text


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b'{"hidden_size": 128}'),
        ("model.safetensors", b""),
        ("model.safetensors", struct.pack("<Q", 1 << 60)),
        ("model.safetensors", struct.pack("<Q", 2) + b"[]"),
        ("model.safetensors", struct.pack("<Q", 11) + b'{"a": null}'),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, content: bytes) -> None:
    folder = model(tmp_path / "model")
    (folder / file).write_bytes(content)
    with pytest.raises(PartFailed, match=file):
        shape(folder)
    assert examine(tiny(folder=folder), ROOMY).errors


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("engine.max_model_len=1024", "512 positions"),
        ("engine.max_tokens=256", "no room for a prompt"),
        ("engine.kv_cache_gib=0.0001", "fewer than one sequence"),
        ("model.dtype=bfloat16", "float32"),
    ],
)
def test_lengths_that_do_not_fit_are_errors(override: str, named: str) -> None:
    assert any(named in text for text in texts(examine(tiny(override), ROOMY), fatal=True))


def test_a_head_size_that_the_engine_lacks_is_an_error(tmp_path: Path) -> None:
    folder = model(tmp_path / "model", head_dim=48)
    assert any("heads of 48" in text for text in texts(examine(tiny(folder=folder), ROOMY), fatal=True))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("engine.kv_cache_gib=0.01", "preempted"),
        ("learner.micro_batch_tokens=128", "micro-batch of its own"),
        ("learner.threads=9", "threads busy on 8 cores"),
        ("cluster.cpus=9", "may use 8 cores"),
    ],
)
def test_what_would_surprise_is_a_warning(override: str, named: str) -> None:
    result = examine(tiny(override), ROOMY)
    assert any(named in text for text in texts(result, fatal=False))
    assert not result.errors


@pytest.mark.parametrize(
    ("lack", "named"),
    [
        ({"memory": GIB}, "GiB of memory"),
        ({"disk": MIB}, "checkpoints need"),
        ({"seccomp": False}, "no seccomp"),
        ({"system": "darwin"}, "needs Linux"),
    ],
)
def test_a_machine_that_lacks_something_is_an_error(lack: dict[str, Any], named: str) -> None:
    (text,) = texts(examine(tiny(), dataclasses.replace(ROOMY, **lack)), fatal=True)
    assert named in text


def test_a_missing_compiler_is_only_a_warning() -> None:
    result = examine(tiny(), dataclasses.replace(ROOMY, compiler="", ninja=False))
    assert texts(result, fatal=True) == []
    assert "a C++ compiler and ninja not found" in texts(result, fatal=False)[0]


def test_a_given_cluster_must_answer_and_frees_this_machine_of_judgement() -> None:
    small = dataclasses.replace(ROOMY, memory=MIB)
    config = tiny("cluster.address=10.1.2.3:6379")
    asked: list[tuple[str, int]] = []

    def listens(host: str, port: int) -> bool:
        asked.append((host, port))
        return True

    assert not examine(config, small, listens).findings
    assert asked == [("10.1.2.3", 6379)]
    assert "nothing answers" in texts(examine(config, small, lambda host, port: False), fatal=True)[0]
    assert "host:port" in texts(examine(tiny("cluster.address=here"), small), fatal=True)[0]


def test_zero_stages_and_ranks_divide_the_states_of_a_large_model() -> None:
    large = dataclasses.replace(TINY, parameters=3_000_000_000)
    per_parameter = [
        (trainer_memory(tiny(f"learner.zero_stage={stage}", "learner.ranks=4"), large)) / large.parameters / NUMBER
        for stage in (0, 1, 3)
    ]
    overhead = trainer_memory(tiny(), dataclasses.replace(TINY, parameters=0)) / large.parameters / NUMBER
    assert [round(numbers - overhead - 2, 2) for numbers in per_parameter] == [4.0, 3.0, 1.25]


def test_the_report_tells_configuration_processes_and_findings() -> None:
    text = report(examine(tiny("learner.steps=77"), dataclasses.replace(ROOMY, memory=GIB)))
    assert "steps: 77" in text and "357,376 parameters" in text and "of 1.0 GiB free, 8 cores" in text
    assert text.count("error: ") == 1 and text.endswith("this run will not work as it is")


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    machine = inspect(tmp_path / "not" / "there")
    assert machine.cores >= 1 and machine.memory > 0 and machine.disk > 0
