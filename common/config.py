"""The whole configuration of a run: frozen dataclasses, one per part, with the reason for each bound.

`load` reads a YAML preset, applies `key=value` overrides and returns a Config. OmegaConf does the merging and type
checks and goes no further than this module. An unknown key is an error that names the nearest right one.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from common.cluster import ClusterConfig
from common.composite import CompositeConfig
from common.config_keys import known, reason
from common.engine import EngineConfig
from common.errors import ConfigError
from common.gpu_rules import gpu_rules
from common.learner import LearnerConfig
from common.staleness import StalenessConfig
from common.types import STREAMS, TASK_TYPES, Kind, TaskType
from common.weights import WeightsConfig


@dataclass(frozen=True)
class RunConfig:
    name: str = ""  # of the run folder; empty: date and time
    folder: str = "runs"
    seed: int = 0
    incarnation: int = 0  # set by resume, not by hand


@dataclass(frozen=True)
class ModelConfig:
    path: str = "models/base"  # Hugging Face folder: config.json, weights, tokenizer
    dtype: str = "float32"
    build: bool = False  # make the tiny base model at `path` if it is missing
    base_steps: int = 7000  # pre-training steps of that base model
    base_seed: int = 0  # of that base model


@dataclass(frozen=True)
class EnvironmentConfig:
    prompts: str = "compact"  # prompt style: compact (a few tokens, tiny models) | paper (natural language)
    references: int = 1  # K, triplets shown to a proposer; 0: none (the paper's ablation)
    inputs: int = 6  # of an induction task
    shown: int = 3  # of these, shown to the solver
    message: bool = False  # an induction proposal carries a message to the solver
    novelty: str = "program"  # invalid as a copy: a program that the book holds | task (program and inputs) | off
    reject_identity: bool = True  # programs that return their argument are invalid
    reject_constant: bool = True  # programs that give the same for every input are invalid
    error_banned: tuple[str, ...] = ("raise",)  # words that the program of an error task must not hold


@dataclass(frozen=True)
class AlgorithmConfig:
    proposals: int = 12  # groups per propose stream and batch
    solves: int = 4  # groups per solve stream and batch
    samples: int = 6  # n answers to a valid proposal: its solve rate
    solve_samples: int = 6  # m answers to a task of the book
    train_mc: int = 6  # of the n answers, how many are training data (0: the official system)
    train_propose: bool = True  # False: proposals are made and judged, but only answers are trained
    warmup: int = 0  # first batches in which only answers are trained
    shuffle_rewards: bool = False  # a control: rewards are dealt anew at random within each stream
    whiten: str = "sequences"  # mean and deviation of rewards over sequences | tokens (official)
    baseline: str = "stream"  # of an answer's advantage: its stream (TRR++) | group (the answers to its task)
    reference_sampling: str = "uniform"  # uniform | recency (weight: version + 1)
    task_sampling: str = "uniform"  # of solver tasks: max_new (official) | half_new | uniform | recency
    window: int = 1  # versions within which a task is new
    book_limit: int = 0  # tasks per type that can be drawn, a uniform sample of all (0: no limit)
    admit: str = "all"  # valid tasks that enter the book: all | unsolved (not all got it) | learnable (some, not all)
    extreme_reward: float = 0.0  # proposer's reward when all or none solve it; official code: -0.5, paper: 0
    invalid_reward: float = -0.5  # proposer's for what is no valid new task; official code: -1, paper: -0.5
    stream_weight: str = "equal"  # equal: 1/6 each, 1/8 with error | tokens: by token count (official)
    error: bool = False  # error deduction (official code_e): which exception does a program raise? Two more streams

    @property
    def task_types(self) -> tuple[TaskType, ...]:
        """What is proposed and solved."""
        return (*TASK_TYPES, TaskType.ERROR) if self.error else TASK_TYPES

    @property
    def streams(self) -> tuple[Kind, ...]:
        """What is trained."""
        return tuple(stream for stream in STREAMS if stream.task_type in self.task_types)


@dataclass(frozen=True)
class SeedsConfig:
    """Tasks that the base model proposes, starting from the identity function, before anything is trained."""

    tasks: int = 0  # per type that the book should hold; 0: the identity alone
    tries: int = 4096  # proposals per type after which too few valid ones end the run
    load: str = ""  # JSONL of tasks (ours, or the official rows) that come first; each is executed before it counts
    save: str = ""  # where to write the seeds as JSONL; besides, they are in the run's task book


@dataclass(frozen=True)
class IntrinsicConfig:
    """Coefficients of what a proposal is paid besides learnability; 0: off, as all are in the paper's runs."""

    complexity: float = 0.0
    halstead: float = 0.0
    edit_distance: float = 0.0  # to the references
    answer_diversity: float = 0.0  # of deduction's outputs and abduction's inputs
    input_diversity: float = 0.0  # of induction
    output_diversity: float = 0.0  # of induction
    hierarchical: bool = False  # diversity of types and, within a type, of values
    limit: float = 0.5  # of each term
    combine: str = "sum"  # with learnability: sum | multiply | sum_multiply | multiply_sum


@dataclass(frozen=True)
class SafetyConfig:
    on_flag: str = "log"  # a thought that speaks of deceiving people: log | drop (do not train its group) | stop


@dataclass(frozen=True)
class ExecutorConfig:
    shards: int = 1
    first_slice: float = 0.01  # CPU seconds after which a program moves to the slow lane
    cpu_limit: float = 0.2  # CPU seconds per program
    wall_limit: float = 5.0  # seconds; a net below the CPU limit
    memory_mb: int = 256
    strict: bool = False  # whether answers must equal in type, too: 1 is neither True nor 1.0
    output_limit: int = 65536  # bytes of canonical text; larger rejects the task
    cache: int = 65536  # results kept per shard
    store: str = ""  # folder of a result store that outlives the run; empty: none
    together: int = 16  # confined programs that may share a child; 1: each has its own
    credits: int = 64  # jobs a client may have under way at a shard
    deadline: float = 120.0  # seconds after which a job is given up as infra


@dataclass(frozen=True)
class EvalConfig:
    tasks: int = 100  # held-out tasks per type; 0: no evaluation
    harder: int = 0  # held-out tasks per type with longer programs
    forced: bool = False  # of the base: ask each task again with `<think>` begun: what is elicitation
    every: int = 0  # versions; 0: only before and after
    temperature: float = 1.0


@dataclass(frozen=True)
class LoggingConfig:
    view: str = "auto"  # live | plain | auto
    wandb: str = "auto"  # auto: online if logged in | offline | online | disabled
    keep_journal: bool = True  # also what checkpoints contain: `azr replay` begins at the base model then
    keep_discarded: bool = False  # journal what a run without a learner discards


@dataclass(frozen=True)
class Config:
    run: RunConfig = field(default_factory=RunConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    composite: CompositeConfig = field(default_factory=CompositeConfig)
    seeds: SeedsConfig = field(default_factory=SeedsConfig)
    intrinsic: IntrinsicConfig = field(default_factory=IntrinsicConfig)
    safety: SafetyConfig = field(default_factory=SafetyConfig)
    staleness: StalenessConfig = field(default_factory=StalenessConfig)
    engine: EngineConfig = field(default_factory=EngineConfig)
    executor: ExecutorConfig = field(default_factory=ExecutorConfig)
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    weights: WeightsConfig = field(default_factory=WeightsConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    cluster: ClusterConfig = field(default_factory=ClusterConfig)
    logging: LoggingConfig = field(default_factory=LoggingConfig)

    @property
    def longest_micro_batch(self) -> int:
        """Tokens: a sequence longer than the budget has a micro-batch to itself."""
        return max(self.learner.micro_batch_tokens, self.engine.max_model_len)

    @property
    def carrier(self) -> str:
        """How weights travel: gloo, nccl or ipc."""
        return self.weights.carrier(self.cluster.placement, self.engine.actors)

    @property
    def digest(self) -> str:
        """Equal for two processes exactly when they run the same configuration."""
        return hashlib.blake2b(to_yaml(self).encode(), digest_size=8).hexdigest()


def load(preset: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read `preset` (a path, or the name of a file in configs/) and apply `key=value` overrides."""
    path = Path(preset)
    if not path.exists():
        packaged = Path(str(files("configs"))) / path.name
        if path.parent not in (Path(), Path("configs")) or not packaged.exists():
            names = ", ".join(sorted(p.name for p in packaged.parent.glob("*.yaml")))
            raise ConfigError(f"no configuration file {preset}; presets in configs/: {names}")
        path = packaged
    source = str(path)
    try:
        merged = OmegaConf.merge(OmegaConf.structured(Config), known(OmegaConf.load(path), Config, source))
        for source in overrides:
            override = OmegaConf.from_dotlist([_checked_override(source)])
            merged = OmegaConf.merge(merged, known(override, Config, "the command line"))
        source = str(path)
        config = OmegaConf.to_object(merged)
    except (OmegaConfBaseException, YAMLError, OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{source}: {reason(error)}") from error
    assert isinstance(config, Config)
    betas = (float(config.learner.betas[0]), float(config.learner.betas[1]))
    config = dataclasses.replace(
        config,
        learner=dataclasses.replace(config.learner, betas=betas),
        environment=dataclasses.replace(config.environment, error_banned=tuple(config.environment.error_banned)),
    )
    check(config)
    return config


def to_yaml(config: Config) -> str:
    return OmegaConf.to_yaml(OmegaConf.structured(config))


def check(config: Config) -> None:
    """Bounds that types cannot express. Raises ConfigError naming the key."""
    rules: list[tuple[bool, str]] = [
        (
            0 < config.environment.shown < config.environment.inputs,
            "environment.shown must lie between 1 and environment.inputs - 1: some pairs are shown, some hidden",
        ),
        (
            0 <= config.algorithm.train_mc <= config.algorithm.samples,
            "algorithm.train_mc must lie between 0 and algorithm.samples",
        ),
        (
            config.algorithm.proposals + config.algorithm.solves > 0,
            "algorithm.proposals and algorithm.solves are both 0",
        ),
        (
            -1 <= config.algorithm.invalid_reward <= 0,
            "algorithm.invalid_reward must lie between -1, what a response without format is paid, and 0",
        ),
        (
            all(word.strip() for word in config.environment.error_banned),
            "environment.error_banned has an empty word, which every program holds; [] bans nothing",
        ),
        (
            config.learner.trainers > 0 or not config.engine.join_after,
            "engine.join_after waits for a version, and with learner.kind=none there is none after version 0",
        ),
        (
            not config.eval.forced or config.environment.prompts == "compact",
            "eval.forced is for environment.prompts=compact: every paper prompt begins the thought",
        ),
        (
            config.executor.first_slice <= config.executor.cpu_limit <= config.executor.wall_limit,
            "executor.first_slice, cpu_limit and wall_limit must not decrease in this order",
        ),
        *config.cluster.rules,
        *config.staleness.rules,
        *config.composite.rules,
        *config.engine.rules,
        *config.learner.rules,
        *gpu_rules(config.cluster, config.engine, config.learner),
        *config.weights.rules(config.cluster.placement, config.engine.actors),
    ]
    for holds, message in rules:
        if not holds:
            raise ConfigError(message)
    for key, choices in _CHOICES.items():
        if _value(config, key) not in choices:
            raise ConfigError(f"{key} must be {', '.join(choices[:-1])} or {choices[-1]}")
    for key, (least, why) in _LEAST.items():
        if _value(config, key) < least:
            raise ConfigError(f"{key} must be at least {least:g}{why}")
    if "/" in config.run.name or config.run.name in (".", ".."):
        raise ConfigError("run.name names a folder inside run.folder: it holds no /")


_CHOICES: dict[str, tuple[str, ...]] = {
    "environment.prompts": ("compact", "paper"),
    "environment.novelty": ("program", "task", "off"),
    "algorithm.whiten": ("sequences", "tokens"),
    "algorithm.baseline": ("stream", "group"),
    "algorithm.reference_sampling": ("uniform", "recency"),
    "algorithm.task_sampling": ("max_new", "half_new", "uniform", "recency"),
    "algorithm.admit": ("all", "unsolved", "learnable"),
    "algorithm.stream_weight": ("equal", "tokens"),
    "intrinsic.combine": ("sum", "multiply", "sum_multiply", "multiply_sum"),
    "safety.on_flag": ("log", "drop", "stop"),
    "logging.view": ("auto", "live", "plain"),
    "logging.wandb": ("auto", "offline", "online", "disabled"),
}
_LEAST: dict[str, tuple[float, str]] = {
    "environment.references": (0, ""),
    "algorithm.warmup": (0, ""),
    "algorithm.window": (1, ""),
    "algorithm.book_limit": (0, ""),
    "seeds.tasks": (0, ""),
    **{f"intrinsic.{term}": (0, "") for term in ("complexity", "halstead", "edit_distance", "limit")},
    **{f"intrinsic.{what}_diversity": (0, "") for what in ("answer", "input", "output")},
    "seeds.tries": (1, ""),
    "algorithm.proposals": (0, ""),
    "algorithm.solves": (0, ""),
    "algorithm.samples": (2, ": a solve rate needs several answers"),
    "algorithm.solve_samples": (1, ""),
    "executor.shards": (1, ""),
    "executor.first_slice": (0.001, " seconds"),
    "executor.cpu_limit": (0.001, " seconds"),
    "executor.wall_limit": (0.001, " seconds"),
    "executor.memory_mb": (16, ": the interpreter needs some itself"),
    "executor.together": (1, ""),
    "executor.credits": (1, ""),
    "executor.deadline": (0.001, " seconds"),
    "eval.tasks": (0, ""),
    "eval.harder": (0, ""),
}


def _value(config: Config, key: str) -> Any:
    section, _, name = key.partition(".")
    return getattr(getattr(config, section), name)


def _checked_override(text: str) -> str:
    key, equals, _ = text.partition("=")
    if not equals or not key:
        raise ConfigError(f"cannot read override {text!r}: write key=value, for instance learner.steps=10")
    return text
