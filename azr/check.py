"""Will this configuration run on this machine? `examine` says so without starting, writing or loading anything.

An *error* is something that would end the run or keep it from starting; a *warning* is something that would surprise.
With a given Ray cluster (`cluster.address`) memory and cores of this machine are not judged: parts may run elsewhere.
Not examined: the machines of such a cluster, and whether vLLM knows the model's architecture.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from azr import model_folder
from azr.footprint import GIB, NUMBER, Process, checkpoint_bytes, processes, requested_cpus
from azr.machine import Machine
from azr.model_folder import TINY, Shape
from common.config import Config, to_yaml
from common.errors import PartFailed

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)  # of vLLM's attention on CPU
CONNECT_SECONDS = 3.0
_ROOM = 64 << 20  # bytes of disk for journal, task book and logs of a small run


@dataclass(frozen=True, slots=True)
class Finding:
    fatal: bool
    text: str  # what is wrong, with the figures
    hint: str  # what to try

    def __str__(self) -> str:
        return f"{'error' if self.fatal else 'warning'}: {self.text}\n  try: {self.hint}"


@dataclass(frozen=True, slots=True)
class Examination:
    """`shape` is None, and `processes` empty, where the model folder cannot be read."""

    config: Config
    machine: Machine
    shape: Shape | None
    processes: tuple[Process, ...]
    findings: tuple[Finding, ...]

    @property
    def memory(self) -> int:
        return sum(process.count * process.memory for process in self.processes)

    @property
    def errors(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.fatal)


def connects(host: str, port: int) -> bool:
    """Does something listen at host:port? Opens a connection and closes it."""
    try:
        with socket.create_connection((host, port), timeout=CONNECT_SECONDS):
            return True
    except OSError:
        return False


def examine(config: Config, machine: Machine, listens: Callable[[str, int], bool] = connects) -> Examination:
    """All findings about `config` on `machine`. `listens(host, port)` is asked about a given Ray cluster alone."""
    shape, findings = _model(config)
    started: tuple[Process, ...] = ()
    if shape is not None:
        findings += _lengths(config, shape)
        started = processes(config, shape)
        if not config.cluster.address:
            findings += _capacity(config, machine, shape, started)
    findings += _held_out(config)
    findings += _parts(machine)
    findings += _cluster(config, listens)
    return Examination(config, machine, shape, started, tuple(findings))


def report(result: Examination) -> str:
    """The examination as text for people."""
    lines = [to_yaml(result.config)]
    if result.shape is not None:
        built = "" if Path(result.config.model.path).exists() else ", to be built first"
        lines.append(f"model: {result.shape.parameters:,} parameters in {result.config.model.path}{built}")
        lines.append(f"{'process':<10}{'count':>5}{'GiB each':>10}{'GiB':>8}  what")
        lines += [
            f"{p.name:<10}{p.count:>5}{p.memory / GIB:>10.2f}{p.count * p.memory / GIB:>8.2f}  {p.what}"
            for p in result.processes
        ]
        lines.append(
            f"{'together':<25}{result.memory / GIB:>8.2f}  of {result.machine.memory / GIB:.1f} GiB free, "
            f"{result.machine.cores} cores"
        )
    lines += ["", *map(str, sorted(result.findings, key=lambda finding: not finding.fatal))]
    lines.append("this run will not work as it is" if result.errors else "nothing stands in the way of this run")
    return "\n".join(lines)


def _model(config: Config) -> tuple[Shape | None, list[Finding]]:
    folder = Path(config.model.path)
    findings: list[Finding] = []
    if config.model.dtype != "float32":
        findings.append(
            Finding(
                True,
                f"model.dtype is {config.model.dtype}; training on CPU is in float32",
                "model.dtype=float32",
            )
        )
    if not folder.exists():
        if config.model.build:
            return TINY, findings
        hint = "model.build=true makes the tiny base model there, or set model.path to a Hugging Face folder"
        return None, [*findings, Finding(True, f"there is no model folder {folder}", hint)]
    lacks = model_folder.missing(folder)
    if lacks:
        text = f"the model folder {folder} lacks {', '.join(lacks)}"
        return None, [
            *findings,
            Finding(True, text, "complete the folder, remove it, or set another model.path"),
        ]
    try:
        return model_folder.shape(folder), findings
    except PartFailed as error:
        return None, [*findings, Finding(True, error.what, error.hint)]


def _lengths(config: Config, shape: Shape) -> Iterator[Finding]:
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
    if shape.head_dim not in HEAD_SIZES:
        sizes = ", ".join(map(str, HEAD_SIZES))
        yield Finding(
            True,
            f"vLLM on CPU has no attention for heads of {shape.head_dim}",
            f"a model with one of {sizes}",
        )
    room = int(engine.kv_cache_gib * GIB) // shape.kv_bytes(NUMBER)
    if room < engine.max_model_len:
        yield Finding(
            True,
            f"engine.kv_cache_gib={engine.kv_cache_gib:g} holds {room:,} tokens, fewer than one sequence of "
            f"engine.max_model_len={engine.max_model_len}",
            "a larger engine.kv_cache_gib",
        )
    elif room < engine.max_num_seqs * engine.max_model_len:
        yield Finding(
            False,
            f"engine.kv_cache_gib={engine.kv_cache_gib:g} holds {room // engine.max_model_len} full sequences, fewer "
            f"than engine.max_num_seqs={engine.max_num_seqs}: long ones will be preempted and computed again",
            "a larger engine.kv_cache_gib or a smaller engine.max_num_seqs",
        )
    if config.learner.micro_batch_tokens < engine.max_model_len:
        yield Finding(
            False,
            f"learner.micro_batch_tokens={config.learner.micro_batch_tokens} is less than one sequence of "
            f"engine.max_model_len={engine.max_model_len}, which gets a larger micro-batch of its own",
            f"learner.micro_batch_tokens={engine.max_model_len} or more",
        )


def _held_out(config: Config) -> Iterator[Finding]:
    folder = Path(config.model.path)
    if config.eval.tasks and folder.is_dir() and not (folder / "heldout.jsonl").exists():
        yield Finding(
            True,
            f"eval.tasks={config.eval.tasks}, but {folder} holds no held-out tasks (heldout.jsonl)",
            "eval.tasks=0, or put a file of tasks there, one JSON object of common.types.Task a line",
        )


def _capacity(config: Config, machine: Machine, shape: Shape, started: tuple[Process, ...]) -> Iterator[Finding]:
    memory = sum(process.count * process.memory for process in started)
    if memory > machine.memory:
        largest = max(started, key=lambda process: process.count * process.memory)
        yield Finding(
            True,
            f"the run needs about {memory / GIB:.1f} GiB of memory and {machine.memory / GIB:.1f} GiB are free; most "
            f"goes to {largest.count} x {largest.name} ({largest.count * largest.memory / GIB:.1f} GiB)",
            _SMALLER.get(largest.name, "close other programs"),
        )
    disk = checkpoint_bytes(config, shape) + _ROOM
    if disk > machine.disk:
        yield Finding(
            True,
            f"checkpoints need {disk / GIB:.1f} GiB and {machine.disk / GIB:.1f} GiB are free in {config.run.folder}",
            "a smaller learner.keep_checkpoints, or run.folder on another disk",
        )
    busy = sum(process.count * process.cores for process in started if process.name in ("actor", "trainer"))
    if busy > machine.cores:
        yield Finding(
            False,
            f"actors and trainer ranks keep {busy:g} threads busy on {machine.cores} cores: they will slow each other",
            "fewer engine.actors, learner.ranks, or threads of either",
        )
    asked = requested_cpus(config)
    if asked > config.cluster.cpus:
        yield Finding(
            True,
            f"the processes ask Ray for {asked:.1f} logical CPUs and cluster.cpus={config.cluster.cpus} are offered",
            f"cluster.cpus={math.ceil(asked)}, or fewer actors, ranks or shards",
        )
    if config.cluster.cpus > machine.cores:
        yield Finding(
            False,
            f"cluster.cpus={config.cluster.cpus}, but this process may use {machine.cores} cores",
            f"cluster.cpus={machine.cores}",
        )


_SMALLER = {
    "actor": "fewer engine.actors, a smaller engine.kv_cache_gib, or a smaller model",
    "trainer": "a higher learner.zero_stage with more learner.ranks, a smaller learner.micro_batch_tokens or model",
    "executor": "a smaller executor.memory_mb or fewer executor.shards",
}


def _parts(machine: Machine) -> Iterator[Finding]:
    if machine.system != "linux":
        yield Finding(True, f"the sandbox needs Linux, this is {machine.system}", "a Linux machine or container")
    elif not machine.seccomp:
        yield Finding(
            True,
            "this kernel offers no seccomp filters, and without them no untrusted program is run",
            "a kernel with CONFIG_SECCOMP_FILTER, or a container runtime that passes seccomp through",
        )
    lacks = [
        name
        for name, there in (
            ("a C++ compiler", machine.compiler),
            ("Python.h", machine.headers),
            ("ninja", machine.ninja),
        )
        if not there
    ]
    if lacks:
        yield Finding(
            False,
            f"{' and '.join(lacks)} not found: operators that PyTorch or DeepSpeed compile when first used will fail",
            "install g++ and the Python headers (python3.11-dev); ninja comes with requirements/",
        )


def _cluster(config: Config, listens: Callable[[str, int], bool]) -> Iterator[Finding]:
    address = config.cluster.address
    if not address or address == "auto":
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdigit():
        yield Finding(True, f"cluster.address={address} is not of the form host:port", "cluster.address=10.0.0.1:6379")
    elif not listens(host, int(port)):
        yield Finding(
            True,
            f"nothing answers at cluster.address={address}",
            "start Ray there (ray start --head), or leave cluster.address empty for a Ray of the run's own",
        )
