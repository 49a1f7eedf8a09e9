"""What `azr check` finds, on machines and in model folders made up for the purpose."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import pytest

from azr.check import Examination, examine, report
from azr.footprint import MIB, NUMBER, processes, trainer_memory
from azr.machine import Machine, inspect
from azr.memory import GIB
from azr.model_folder import TINY, Shape, missing, shape
from common.config import Config, load, to_yaml
from common.errors import ConfigError, PartFailed
from common.types import TASK_TYPES
from learner.task_book import task_to_json
from tests.fakes.groups import a_task

HELD_OUT = ("heldout.jsonl", "heldout_harder.jsonl")
ON_GPUS = ("model.dtype=bfloat16", "cluster.placement=disjoint")
ROOMY = Machine("linux", 8, 64 * GIB, 100 * GIB, seccomp=True, compiler="/usr/bin/c++", headers=True, ninja=True)


def tiny(*overrides: str, folder: str | Path = "/nowhere/tiny") -> Config:
    """With as many held-out tasks as `model` writes."""
    return load("tiny.yaml", [f"model.path={folder}", "eval.tasks=1", "eval.harder=1", *overrides])


def texts(result: Examination, *, fatal: bool) -> list[str]:
    return [finding.text for finding in result.findings if finding.fatal is fatal]


def model(folder: Path, *, shards: int = 1, **changes: Any) -> Path:
    """A model folder as Hugging Face lays it out, with headers that promise tensors of 10 + 6 numbers per shard."""
    folder.mkdir()
    config = {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 4, "vocab_size": 460, **changes}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text("{}")
    for file in HELD_OUT:
        (folder / file).write_text("".join(task_to_json(a_task(t.value, t)) + "\n" for t in TASK_TYPES))
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
    names = {"driver", "ray", "intake", "analysis", "executor", "actor", "trainer"}
    assert {process.name for process in result.processes} == names
    assert 2 * GIB < result.memory < 5 * GIB


def test_a_run_without_learner_starts_none_and_says_what_has_no_effect() -> None:
    no_eval = "eval.tasks=0", "eval.harder=0"
    result = examine(tiny("learner.kind=none", "engine.actors=3", "eval.harder=0"), ROOMY)
    assert {process.name for process in result.processes} == {"driver", "ray", "intake", "executor", "actor"}
    (text,) = texts(result, fatal=False)
    assert "learner.kind=none" in text and "eval.tasks=1 has no effect" in text
    (text,) = texts(examine(tiny("learner.kind=none", *no_eval, "staleness.mode=exact"), ROOMY), fatal=False)
    assert "staleness.mode=exact has no effect" in text
    (text,) = texts(examine(tiny("learner.kind=none", *no_eval, "staleness.auto=true"), ROOMY), fatal=False)
    assert "staleness.auto=true has no effect" in text
    assert not result.errors  # a trainer beside three actors would ask for more logical CPUs than there are
    small = "learner.micro_batch_tokens=1"  # said of a learner alone
    assert examine(tiny("learner.kind=none", *no_eval, small), ROOMY).findings == ()


def test_a_run_without_learner_needs_gpus_for_engines_alone() -> None:
    result = examine(load("7b-coder.yaml", ["learner.kind=none"]), ROOMY, lambda *_: True, lambda: ())
    assert result.gpus is not None and result.gpus.count == result.config.engine.actors
    assert "trainer" not in report(result).replace(to_yaml(result.config), "")


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


@pytest.mark.parametrize(("file", "key"), [(HELD_OUT[0], "eval.tasks"), (HELD_OUT[1], "eval.harder")])
def test_evaluation_needs_held_out_tasks(tmp_path: Path, file: str, key: str) -> None:
    folder = model(tmp_path / "model")
    (folder / file).unlink()
    (text,) = texts(examine(tiny(folder=folder), ROOMY), fatal=True)
    assert f"({file})" in text and key in text
    assert not texts(examine(tiny(f"{key}=0", folder=folder), ROOMY), fatal=True)
    assert key in texts(examine(tiny(f"{key}=401"), ROOMY), fatal=True)[0]
    assert not texts(examine(tiny(f"{key}=400"), ROOMY), fatal=True)


def test_held_out_tasks_must_be_enough_and_readable(tmp_path: Path) -> None:
    folder = model(tmp_path / "model")
    (text,) = texts(examine(tiny("eval.tasks=2", folder=folder), ROOMY), fatal=True)
    assert "too few for eval.tasks=2" in text
    (folder / HELD_OUT[1]).write_text("no task\n")
    (text,) = texts(examine(tiny(folder=folder), ROOMY), fatal=True)
    assert HELD_OUT[1] in text


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
    ],
)
def test_lengths_that_do_not_fit_are_errors(override: str, named: str) -> None:
    assert any(named in text for text in texts(examine(tiny(override), ROOMY), fatal=True))


def test_a_head_size_that_the_engine_lacks_on_cpu_is_an_error(tmp_path: Path) -> None:
    folder = model(tmp_path / "model", head_dim=48, intermediate_size=384)
    assert any("heads of 48" in text for text in texts(examine(tiny(folder=folder), ROOMY), fatal=True))
    on_gpu = examine(tiny(*ON_GPUS, folder=folder), ROOMY, free_gpus=lambda: ())
    assert not any("heads of 48" in text for text in texts(on_gpu, fatal=True))


@pytest.mark.parametrize(
    ("override", "named"),
    [
        ("engine.kv_cache_gib=0.01", "preempted"),
        ("model.dtype=bfloat16", "slower than in float32"),
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


def test_a_vllm_that_nobody_knows_is_an_error() -> None:
    (text,) = texts(examine(tiny(), ROOMY, vllm=lambda: "0.25.1"), fatal=True)
    assert "vLLM 0.25.1 is older" in text
    assert not texts(examine(tiny(), ROOMY, vllm=lambda: "0.26.0"), fatal=True)


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


def test_on_the_cpu_too_entropy_bonus_and_kl_cost_memory() -> None:
    plain = trainer_memory(tiny(), TINY)
    assert trainer_memory(tiny("learner.kl=0.1"), TINY) - plain == 4 * TINY.parameters
    bonus = trainer_memory(tiny("learner.entropy_bonus=0.1"), TINY) - plain
    assert bonus == 4 * tiny().learner.micro_batch_tokens * TINY.vocabulary


def test_zero_stages_and_ranks_divide_the_states_of_a_large_model() -> None:
    large = dataclasses.replace(TINY, parameters=3_000_000_000)
    base = trainer_memory(tiny("learner.micro_batch_tokens=1"), dataclasses.replace(TINY, parameters=0))
    held = [
        trainer_memory(tiny("learner.micro_batch_tokens=1", f"learner.zero_stage={stage}", "learner.ranks=4"), large)
        for stage in (0, 1, 3)
    ]
    # Weights, gradients and moments; whole ones, then a quarter of a master copy, moments and flat gradients; last
    # also of the first two, and a third gathered. For pushes four copies each.
    assert [(memory - base) / NUMBER / large.parameters for memory in held] == pytest.approx(
        [4 + 4, 4 + 2 + 4 / 4, 4 + 6 / 4 + 1 / 3], abs=1e-3
    )


def test_the_report_tells_configuration_processes_and_findings() -> None:
    text = report(examine(tiny("learner.steps=77"), dataclasses.replace(ROOMY, memory=GIB)))
    assert "steps: 77" in text and "357,376 parameters" in text and "of 1.0 GiB free, 8 cores" in text
    assert text.count("\nerror: ") == 1 and text.endswith("this run will not work as it is")


def test_this_machine_can_be_read(tmp_path: Path) -> None:
    machine = inspect(tmp_path / "not" / "there")
    assert machine.cores >= 1 and machine.memory > 0 and machine.disk > 0


def published(*overrides: str, folder: str | Path = "/nowhere/Qwen2.5-Coder-3B") -> Config:
    return load("3b-coder.yaml", [f"model.path={folder}", *overrides])


def no_gpus() -> tuple[int, ...]:
    return ()


def test_a_published_model_is_examined_before_it_is_fetched() -> None:
    result = examine(published(), ROOMY, free_gpus=no_gpus)
    assert result.shape is not None and result.shape.parameters == 3_085_938_688
    hints = [finding.hint for finding in result.errors]
    assert "hf download Qwen/Qwen2.5-Coder-3B --local-dir /nowhere/Qwen2.5-Coder-3B" in hints
    text = report(result)
    assert "3,085,938,688 parameters in /nowhere/Qwen2.5-Coder-3B, not there yet" in text
    assert "prompts of 6,144 + answers of 8,096 = 14,240 tokens, of 32,768" in text
    assert "36,864 B a token, 0.49 GiB a sequence of 14,240 tokens, 130 such sequences" in text
    assert "this machine has no GPU, and the run needs 2" in text
    assert text.endswith("this run will not work as it is")


def test_a_folder_on_disk_counts_more_than_the_published_table(tmp_path: Path) -> None:
    folder = model(tmp_path / "Qwen2.5-Coder-3B", intermediate_size=384)
    result = examine(published(folder=folder), ROOMY, free_gpus=no_gpus)
    assert result.shape is not None and result.shape.parameters == 16
    assert result.gpus is not None and result.gpus.model.feed_forward == 384


def test_an_unfinished_download_is_completed_by_the_same_command(tmp_path: Path) -> None:
    folder = model(tmp_path / "Qwen2.5-Coder-3B", intermediate_size=384)
    (folder / "model.safetensors").unlink()
    result = examine(published(folder=folder), ROOMY, free_gpus=no_gpus)
    assert result.shape is not None and result.shape.parameters == 3_085_938_688
    (error,) = [finding for finding in result.errors if "lacks weights" in finding.text]
    assert error.hint == f"hf download Qwen/Qwen2.5-Coder-3B --local-dir {folder}"


def test_gpus_cannot_be_reckoned_without_the_width_of_the_feed_forward_layers(tmp_path: Path) -> None:
    result = examine(
        tiny(*ON_GPUS, folder=model(tmp_path / "model")),
        ROOMY,
        free_gpus=no_gpus,
    )
    assert result.gpus is None
    assert any("intermediate_size" in error.text for error in result.errors)


def test_gpus_of_a_given_cluster_are_not_judged_here() -> None:
    config = published("cluster.address=10.1.2.3:6379")
    result = examine(config, ROOMY, lambda host, port: True, no_gpus)
    assert result.gpus is not None and not any("GPU," in error.text for error in result.errors)


def test_machines_of_a_given_cluster_must_have_the_same_folders() -> None:
    result = examine(tiny("cluster.address=10.1.2.3:6379"), ROOMY, lambda host, port: True)
    assert "run folder under the same paths" in report(result)
    assert "run folder under the same paths" not in report(examine(tiny(), ROOMY))


def test_heads_that_tensor_parallelism_does_not_divide_are_an_error() -> None:
    """The model has 16 heads of queries and 2 of keys: four GPUs hold copies of the latter."""
    for over, wrong in ((2, False), (3, True), (4, False)):
        config = published(f"engine.tensor_parallel={over}", "cluster.cpus=8")
        found = [text for text in texts(examine(config, ROOMY, free_gpus=no_gpus), fatal=True) if "16 heads" in text]
        assert bool(found) is wrong


def test_an_engine_in_the_actors_process_is_not_meant_for_gpus(tmp_path: Path) -> None:
    folder = model(tmp_path / "model", intermediate_size=384)
    for kind, warned in (("inprocess", True), ("async", False)):
        result = examine(tiny(*ON_GPUS, f"engine.kind={kind}", folder=folder), ROOMY, free_gpus=no_gpus)
        assert any("engine.kind=inprocess" in text for text in texts(result, fatal=False)) is warned


def test_gpus_of_a_run_on_cpu_are_not_looked_for() -> None:
    def never() -> tuple[int, ...]:
        raise AssertionError("asked for GPUs")

    assert not examine(tiny(), ROOMY, free_gpus=never).findings
    large = dataclasses.replace(ROOMY, memory=1024 * GIB, disk=1024 * GIB)
    assert examine(published("model.dtype=float32", "cluster.placement=cpu"), large, free_gpus=never).gpus is None


def test_precision_that_nobody_knows_is_an_error() -> None:
    assert any("float16" in text for text in texts(examine(tiny("model.dtype=float16"), ROOMY), fatal=True))


def test_host_memory_beside_gpus_by_hand() -> None:
    shape = dataclasses.replace(TINY, parameters=1_000_000_000)

    def trainers(ranks: int) -> list[tuple[int, float]]:
        config = published(f"learner.ranks={ranks}")
        found = [p for p in processes(config, shape) if p.name == "trainer"]
        base = trainer_memory(config, dataclasses.replace(TINY, parameters=0))
        return [(p.count, (p.memory - base) / 1e9) for p in found]

    # Rank 0 holds four copies of 2 GB for pushes. Eight ranks reading 2 GB each exceed that by 8 GB.
    assert trainers(1) == [(1, 8.0)]
    assert trainers(3) == [(1, 8.0), (2, 0.0)]
    assert trainers(8) == [(1, 8.0), (7, pytest.approx(8 / 7))]


def test_memory_that_is_to_be_counted_on_takes_the_place_of_what_is_free() -> None:
    short = dataclasses.replace(ROOMY, memory=MIB)
    assert not examine(tiny("cluster.memory_gib=8"), short).errors
    assert "0.5 GiB are free" in texts(examine(tiny("cluster.memory_gib=0.5"), ROOMY), fatal=True)[0]
    with pytest.raises(ConfigError, match="memory_gib must be at least 0"):
        tiny("cluster.memory_gib=-1")


def test_short_host_memory_of_a_run_on_gpus_is_not_blamed_on_zero() -> None:
    short = dataclasses.replace(ROOMY, memory=8 * GIB)
    (error,) = [e for e in examine(published(), short, free_gpus=no_gpus).errors if "GiB of memory" in e.text]
    assert "copy of the weights" in error.hint
