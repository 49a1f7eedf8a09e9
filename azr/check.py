"""Will this configuration run on this machine? `examine` says so without starting, writing or loading anything.

An *error* is something that would end the run or keep it from starting; a *warning* is something that would surprise.
With a given Ray cluster (`cluster.address`) memory, cores and GPUs of this machine are not judged: parts may run
elsewhere. cluster.placement tells whether a run is meant for GPUs.
Not examined: the machines of such a cluster, and whether vLLM knows the model's architecture.
"""

from __future__ import annotations

import dataclasses
import math
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from actors import vllm_version
from azr import base, concurrency, core_placement, gpus, model_check
from azr.finding import Finding
from azr.footprint import Process, checkpoint_bytes, on_gpus, processes, requested_cpus
from azr.gpu_needs import GpuNeeds, lacking, lines, needs
from azr.machine import Machine
from azr.memory import GIB
from azr.model_folder import Shape
from common.config import Config, to_yaml
from common.errors import PartFailed

CONNECT_SECONDS = 3.0
_ROOM = 64 << 20  # bytes of disk for journal, task book and logs of a small run


@dataclass(frozen=True, slots=True)
class Examination:
    """`shape` is None, and `processes` empty, where the model is not known; `gpus` is None for a run on CPU alone."""

    config: Config
    machine: Machine
    shape: Shape | None
    processes: tuple[Process, ...]
    findings: tuple[Finding, ...]
    gpus: GpuNeeds | None = None

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


def examine(
    config: Config,
    machine: Machine,
    listens: Callable[[str, int], bool] = connects,
    free_gpus: Callable[[], tuple[int, ...]] = gpus.found,
    vllm: Callable[[], str] = vllm_version.installed,
) -> Examination:
    """All findings about `config` on `machine`; the configuration in it names the model folder that will be used, and
    has a number for engine.max_num_seqs if the model is known.

    `listens(host, port)` is asked about a given Ray cluster alone, `free_gpus()` for the free bytes of each GPU of this
    machine, and for a run that is meant for GPUs alone; `vllm()` for the version of vLLM.
    """
    config = dataclasses.replace(config, model=base.located(config.model))
    if config.cluster.memory_gib:
        machine = dataclasses.replace(machine, memory=int(config.cluster.memory_gib * GIB))
    shape, findings = model_check.described(config)
    started: tuple[Process, ...] = ()
    asked: GpuNeeds | None = None
    if shape is not None:
        findings += model_check.lengths(config, shape)
        config = concurrency.decided(config, shape)
        started = processes(config, shape)
        if not config.cluster.address:
            findings += _capacity(config, machine, shape, started)
    if shape is not None and on_gpus(config):
        model, unknown = model_check.detailed(config, shape)
        findings += [*unknown, *_in_process(config)]
        if model is not None:
            asked = needs(config, model)
            if not config.cluster.address:
                findings += _gpus(asked, free_gpus())
    findings += model_check.held_out(config) if config.learner.trainers else _without_learner(config)
    findings += core_placement.missing(config)
    findings += _parts(machine)
    findings += _vllm(vllm)
    findings += _cluster(config, listens)
    return Examination(config, machine, shape, started, tuple(findings), asked)


def report(result: Examination) -> str:
    """The examination as text for people."""
    text = [to_yaml(result.config)]
    if result.shape is not None:
        missing = ", to be built first" if result.config.model.build else ", not there yet"
        state = "" if Path(result.config.model.path).exists() else missing
        text.append(f"model: {result.shape.parameters:,} parameters in {result.config.model.path}{state}")
        text.append(concurrency.line(result.config, result.shape))
        if result.gpus is not None:
            text += ["", *lines(result.gpus), "", "host memory, beside the GPUs:"]
        text.append(f"{'process':<10}{'count':>5}{'GiB each':>10}{'GiB':>8}  what")
        text += [
            f"{p.name:<10}{p.count:>5}{p.memory / GIB:>10.2f}{p.count * p.memory / GIB:>8.2f}  {p.what}"
            for p in result.processes
        ]
        text.append(
            f"{'together':<25}{result.memory / GIB:>8.2f}  of {result.machine.memory / GIB:.1f} GiB free, "
            f"{result.machine.cores} cores"
        )
    if result.config.cluster.address:
        text.append(_MACHINES)
    text += ["", *map(str, sorted(result.findings, key=lambda finding: not finding.fatal))]
    text.append("this run will not work as it is" if result.errors else "nothing stands in the way of this run")
    return "\n".join(text)


def _without_learner(config: Config) -> Iterator[Finding]:
    """What a run of actors and executor alone leaves out."""
    asked = {"eval.tasks": config.eval.tasks, "eval.harder": config.eval.harder}
    unused = [f"{key}={count}" for key, count in asked.items() if count]
    if unused:
        yield Finding(
            False,
            f"learner.kind=none: nothing is trained or evaluated, {' and '.join(unused)} has no effect",
            "eval.tasks=0 eval.harder=0",
        )
    if config.staleness.mode == "exact":
        yield Finding(
            False,
            "learner.kind=none: all is sampled by version 0, and staleness.mode=exact has no effect",
            "staleness.mode=natural",
        )
    if config.staleness.auto:
        yield Finding(
            False,
            "learner.kind=none: no learner waits or drifts, and staleness.auto=true has no effect",
            "staleness.auto=false",
        )


def _capacity(config: Config, machine: Machine, shape: Shape, started: tuple[Process, ...]) -> Iterator[Finding]:
    memory = sum(process.count * process.memory for process in started)
    if memory > machine.memory:
        largest = max(started, key=lambda process: process.count * process.memory)
        yield Finding(
            True,
            f"the run needs about {memory / GIB:.1f} GiB of memory and {machine.memory / GIB:.1f} GiB are free; most "
            f"goes to {largest.count} x {largest.name} ({largest.count * largest.memory / GIB:.1f} GiB)",
            _MORE if on_gpus(config) else _SMALLER.get(largest.name, "close other programs"),
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


def _gpus(asked: GpuNeeds, free: tuple[int, ...]) -> Iterator[Finding]:
    """Of a run whose GPUs are those of this machine."""
    lack = lacking(asked, free)
    if lack:
        yield Finding(
            True,
            lack,
            "a machine that has them, the cluster.address of a Ray cluster that does, a higher learner.zero_stage with "
            "more learner.ranks, or a smaller engine.kv_cache_gib",
        )


def _in_process(config: Config) -> Iterator[Finding]:
    if config.engine.kind == "inprocess":
        yield Finding(
            False,
            "engine.kind=inprocess on GPUs: between two steps of the model the GPU waits for all else that the actor "
            "does",
            "engine.kind=async",
        )


_MACHINES = (
    "machines of the cluster: this code, the model folder and the run folder under the same paths on each of them "
    "(a shared file system); not examined"
)
_MORE = (
    "machines with more memory: each version kept for pushes is a copy of the weights; of a virtual machine that grows "
    "with its use set cluster.memory_gib"
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


def _vllm(version: Callable[[], str]) -> Iterator[Finding]:
    try:
        vllm_version.check(version())
    except PartFailed as error:
        yield Finding(True, error.what, error.hint)


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
