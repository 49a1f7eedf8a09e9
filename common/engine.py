"""Settings of the inference engines, those of the actors that hold them included."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EngineConfig:
    kind: str = "inprocess"  # inprocess (LLMEngine stepped in the actor) | async (AsyncLLM)
    actors: int = 1
    max_num_seqs: int = 128  # decoded at a time; 0: what the KV cache has room for (azr/concurrency.py)
    max_model_len: int = 256
    max_tokens: int = 64  # per answer
    tensor_parallel: int = 1  # GPUs, of one node, that an engine divides its weights and KV cache over
    kv_cache_gib: float = 0.25  # of an engine, over all of its GPUs
    prefix_caching: bool = True
    kv: str = "recompute"  # what becomes of keys and values at a push: recompute | keep | salt (docs/weights.md)
    episodes: int = 64  # open per actor; 0: as many as its engine and executor can take
    threads: int = 1
    join_after: int = 0  # actors beyond the first join after this version
    checksums: bool = False  # report a checksum of the loaded weights after every push; slow for large models

    @property
    def rules(self) -> list[tuple[bool, str]]:
        """What must hold, and what to say if it does not."""
        return [
            (self.kind in ("inprocess", "async"), "engine.kind must be inprocess or async"),
            (self.kv in ("recompute", "keep", "salt"), "engine.kv must be recompute, keep or salt"),
            (self.actors >= 1, "engine.actors must be at least 1"),
            (
                self.max_num_seqs >= 0,
                "engine.max_num_seqs must be at least 0 (0: what the KV cache has room for)",
            ),
            (self.max_model_len >= 2, "engine.max_model_len must be at least 2"),
            (self.max_tokens >= 1, "engine.max_tokens must be at least 1"),
            (
                self.episodes >= 0,
                "engine.episodes must be at least 0 (0: as many as engine and executor can take)",
            ),
            (self.threads >= 1, "engine.threads must be at least 1"),
            (self.tensor_parallel >= 1, "engine.tensor_parallel must be at least 1"),
            (
                self.tensor_parallel == 1 or self.kind == "async",
                "engine.tensor_parallel over 1 needs engine.kind=async: its workers are processes of their own",
            ),
        ]
