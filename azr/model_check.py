"""What is wrong with the model of a configuration, and with the lengths of sequences that it should work on.

Nothing is loaded; azr/model_folder.py and azr/architecture.py read a few small files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from azr import architecture, model_folder
from azr.architecture import Architecture
from azr.base.heldout import PER_TYPE
from azr.finding import Finding
from azr.footprint import NUMBER, on_gpus
from azr.memory import GIB, WIDTHS, cached, sequences
from azr.model_folder import TINY, Shape
from common.config import Config
from common.errors import ConfigError, PartFailed
from learner import evaluation
from learner.evaluation import HARDER_FILE, STANDARD_FILE

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of vLLM's attention on CPU


def described(config: Config) -> tuple[Shape | None, list[Finding]]:
    """The shape of the model, from its folder or, where that is missing or incomplete, as published."""
    folder = Path(config.model.path)
    findings = list(_precision(config))
    known = architecture.published(folder)
    fetch = f"hf download {known.repository} --local-dir {folder}" if known else ""
    if not folder.exists():
        if config.model.build:
            return TINY, findings
        hint = "make or fetch it, or set model.path to another; model.build=true makes the tiny base model there"
        findings.append(Finding(True, f"there is no model folder {folder}", fetch or hint))
        return known.shape if known else None, findings
    lacks = model_folder.missing(folder)
    if lacks:
        text = f"the model folder {folder} lacks {', '.join(lacks)}"
        findings.append(Finding(True, text, fetch or "complete the folder, remove it, or set another model.path"))
        return known.shape if known else None, findings
    try:
        return model_folder.shape(folder), findings
    except PartFailed as error:
        return None, [*findings, Finding(True, error.what, error.hint)]


def _precision(config: Config) -> Iterator[Finding]:
    dtype = config.model.dtype
    if dtype not in WIDTHS:
        yield Finding(True, f"model.dtype is {dtype}; what is known is {' and '.join(WIDTHS)}", "model.dtype=float32")
    elif dtype == "bfloat16" and not on_gpus(config):
        yield Finding(
            False,
            "model.dtype is bfloat16 on CPU, which works; a CPU without bfloat16 arithmetic is slower than in float32",
            "model.dtype=float32, or cluster.placement=disjoint or shared for GPUs",
        )


def detailed(config: Config, shape: Shape) -> tuple[Architecture | None, list[Finding]]:
    """What memory on GPUs is computed from; None where only the shape is known."""
    folder = Path(config.model.path)
    if model_folder.missing(folder):
        return architecture.published(folder), []
    try:
        return architecture.read(folder, shape), []
    except PartFailed as error:
        return None, [Finding(True, error.what, error.hint)]


def lengths(config: Config, shape: Shape) -> Iterator[Finding]:
    """Positions of the model, room for prompts, KV cache and micro-batches."""
    engine = config.engine
    if shape.positions and engine.max_model_len > shape.positions:
        yield Finding(
            True,
            f"engine.max_model_len is {engine.max_model_len}, but the model was made for {shape.positions} positions",
            f"engine.max_model_len={shape.positions}",
        )
    if engine.max_tokens >= engine.max_model_len:
        yield Finding(
            True,
            f"answers of engine.max_tokens={engine.max_tokens} leave no room for a prompt in "
            f"engine.max_model_len={engine.max_model_len}",
            "a smaller engine.max_tokens",
        )
    if shape.head_dim not in HEAD_SIZES and not on_gpus(config):
        sizes = ", ".join(map(str, HEAD_SIZES))
        yield Finding(
            True,
            f"vLLM on CPU has no attention for heads of {shape.head_dim}",
            f"a model with one of {sizes}",
        )
    over = engine.tensor_parallel
    if shape.heads % over or (shape.kv_heads % over and over % shape.kv_heads):
        yield Finding(
            True,
            f"engine.tensor_parallel={over} does not divide the model's {shape.heads} heads of queries and "
            f"{shape.kv_heads} of keys",
            "engine.tensor_parallel=1, or a number that divides both",
        )
        return
    width = WIDTHS.get(config.model.dtype, NUMBER)
    room = int(engine.kv_cache_gib * GIB) // cached(shape, width, over)
    full = sequences(config, shape, width)
    if full < 1:
        yield Finding(
            True,
            f"engine.kv_cache_gib={engine.kv_cache_gib:g} holds {room:,} tokens, fewer than one sequence of "
            f"engine.max_model_len={engine.max_model_len}",
            "a larger engine.kv_cache_gib",
        )
    elif full < engine.max_num_seqs:
        yield Finding(
            False,
            f"engine.kv_cache_gib={engine.kv_cache_gib:g} holds {full} full sequences, fewer "
            f"than engine.max_num_seqs={engine.max_num_seqs}: long ones will be preempted and computed again",
            "a larger engine.kv_cache_gib or a smaller engine.max_num_seqs",
        )
    if config.learner.trainers and config.learner.micro_batch_tokens < engine.max_model_len:
        yield Finding(
            False,
            f"learner.micro_batch_tokens={config.learner.micro_batch_tokens} is less than one sequence of "
            f"engine.max_model_len={engine.max_model_len}, which gets a larger micro-batch of its own",
            f"learner.micro_batch_tokens={engine.max_model_len} or more",
        )


def held_out(config: Config) -> Iterator[Finding]:
    """Evaluation needs tasks, enough of each type."""
    folder = Path(config.model.path)
    asked = {"tasks": (config.eval.tasks, STANDARD_FILE), "harder": (config.eval.harder, HARDER_FILE)}
    for key, (count, file) in asked.items():
        if not folder.is_dir():
            if config.model.build and count > PER_TYPE:
                text = f"eval.{key}={count}, but the base model comes with {PER_TYPE} held-out tasks per type in {file}"
                yield Finding(True, text, f"eval.{key}={PER_TYPE} or less")
        elif count and not (folder / file).exists():
            yield Finding(
                True,
                f"eval.{key}={count}, but {folder} holds no held-out tasks ({file})",
                f"eval.{key}=0, or put a file of tasks there, one JSON object of common.types.Task a line",
            )
        else:
            try:
                evaluation.held_out(folder, count, file, key)
            except (ConfigError, ValueError, KeyError, TypeError) as error:
                yield Finding(True, f"{folder / file}: {error}", f"eval.{key}=0, or complete the file")
