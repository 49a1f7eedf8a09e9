"""What an actor asks of its inference engine, whichever way vLLM is run.

Token ids in, token ids and the behaviour policy's log-probs out. The policy is the model at the asked
temperature and nothing else: no top-p, no top-k, no default of a generation config. A push is staged beside
running requests and committed between two decoding steps; every token knows the version that sampled it.

Not guaranteed: equal tokens for equal seeds when requests share a batch (that needs max_num_seqs=1 and no
prefix caching), and finite log-probs: they are handed on as they are (actors/nonfinite.py).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from actors import vllm_version
from common.config import ModelConfig
from common.engine import EngineConfig
from common.errors import PartFailed
from common.messages import Stage
from common.seeds import derive
from common.types import Float32Array, Int32Array, Span


@dataclass(frozen=True, eq=False)
class Completion:
    """One sampled answer. `spans` cover [0, T) without gaps; `finish` is stop, length or abort."""

    tokens: Int32Array  # [T], the stop token included
    logprobs: Float32Array  # [T], at the sampling temperature
    spans: tuple[Span, ...]
    finish: str


@dataclass(frozen=True)
class StageTimes:
    seconds: float
    tokens: int  # decoded meanwhile, at least: what ends or is cancelled at that moment may be missed


@dataclass(frozen=True)
class CommitTimes:
    pause: float  # seconds in which no token was produced
    load: float  # of these, seconds spent copying weights into the model


class Engine(Protocol):
    @property
    def running(self) -> int:
        """Samples and sequences in flight."""
        ...

    @property
    def version(self) -> int:
        """Of the weights that sample the next token."""
        ...

    async def start(self) -> None:
        """Load the model and serve a first request. If it raises PartFailed, there is nothing to close."""
        ...

    async def generate(
        self, prompt: Int32Array, *, n: int, temperature: float, seed: int, max_tokens: int
    ) -> list[Completion]:
        """`n` independent answers to `prompt`, in sample order; sample i is seeded with derive(seed, i).

        Cancelling the caller aborts them. Raises ValueError if the prompt leaves no room for an answer,
        PartFailed if the engine is gone.
        """
        ...

    async def score(self, sequences: Sequence[Int32Array]) -> tuple[Float32Array, ...]:
        """Log-probs of tokens 1… of each sequence, [L] → [L − 1], at temperature 1 and the weights in force.

        Goes before all answers that wait for a place in the batch: a push is over only when its probe is scored.
        Raises ValueError for an empty sequence or one as long as max_model_len.
        """
        ...

    async def stage(self, stage: Stage) -> StageTimes:
        """Receive `stage.version` into the staging buffer while decoding goes on.

        Raises WeightTransferFailed, leaving the engine as it was, if names, shapes or dtypes are not the
        model's, a member is lost, or the checksum disagrees.
        """
        ...

    async def commit(self, version: int) -> CommitTimes:
        """Load the staged `version` between two decoding steps; no network.

        Raises WeightTransferFailed if it is not staged. Any other failure is the end of the engine. Running
        requests go on, and `engine.kv` says with which keys and values (KV):

        recompute: all KV is dropped, the prefix cache with it, and computed again under the new weights.
        keep: running requests keep theirs, and the prefix cache serves blocks of older weights to new requests.
        salt: running requests keep theirs; a request submitted after the commit meets no KV of older weights, as
        the prefix cache is one per version. One that was submitted before and still waits for a slot may.
        """
        ...

    async def reset(self) -> None:
        """Between two runs, when nothing is asked: leave the group of weight pushes, drop all keys and values.

        The weights stay until the first push of the next run, before which nothing is sampled.
        """
        ...

    async def checksum(self) -> str:
        """Digest of the weights that the engine holds; equal for engines of one kind with equal weights."""
        ...

    async def failed(self) -> PartFailed:
        """Return why the engine died by itself; never returns while it is well or after `close`."""
        ...

    async def close(self) -> None: ...


def create(engine: EngineConfig, model: ModelConfig, *, version: int = 0) -> Engine:
    """The engine of `engine.kind`, not started. `version` names the weights in the model folder.

    Imports torch and vLLM: `environment` has to be in force before. PartFailed if this vLLM is not one of those known.
    """
    vllm_version.check(vllm_version.installed())
    if engine.kind == "inprocess":
        from actors.engine_inprocess import InProcessEngine

        return InProcessEngine(engine, model, version=version)
    from actors.engine_async import AsyncEngine

    return AsyncEngine(engine, model, version=version)


def environment(threads: int = 1) -> dict[str, str]:
    """Variables that a process with an engine must have before it imports torch.

    Without the thread count, every small matrix product on CPU spins up all cores: 30 times slower.
    """
    return {
        "OMP_NUM_THREADS": str(threads),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # affinity is set from outside, before vLLM starts
        "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
        "VLLM_LOGGING_LEVEL": os.environ.get("VLLM_LOGGING_LEVEL", "ERROR"),
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",  # for top-p and top-k, never asked for; where it is not installed vLLM ends
    }


def sample_seed(seed: int, sample: int) -> int:
    return derive(seed, sample)


def check_prompt(prompt: Int32Array, limit: int) -> None:
    """ValueError unless `prompt` is a non-empty sequence with room for at least one token below `limit`."""
    if not 0 < len(prompt) < limit:
        raise ValueError(f"a sequence of {len(prompt)} tokens does not fit max_model_len {limit}")
