"""How many sequences an engine decodes at a time, if `engine.max_num_seqs=0` leaves it to the memory of its KV cache.

As many as the cache holds at half of engine.max_model_len each: few prompts are as long as they may be, and of its
answer a sequence under way has half on average. Shorter ones, and prompts shared in the prefix cache, leave room; where
the cache is short all the same, vLLM stops the newest sequences and computes them again. The number is rounded down to
one for which vLLM captures a CUDA graph (its config/vllm.py: 1, 2, 4, then by 8, from 256 by 16), and at most the
largest of these.

Decided before anything starts, from settings and the model's shape alone, so a run that is resumed or repeated has it
again. Not regarded: that a small model on few cores may be slower with so many.
"""

from __future__ import annotations

import dataclasses

from azr.footprint import NUMBER
from azr.memory import WIDTHS, kv_tokens
from azr.model_folder import Shape
from common.config import Config

MOST = 512  # sequences; the largest CUDA graph that vLLM captures unasked


def decided(config: Config, shape: Shape) -> Config:
    """`config` with a number for engine.max_num_seqs."""
    if config.engine.max_num_seqs:
        return config
    room = kv_tokens(config, shape, WIDTHS.get(config.model.dtype, NUMBER))
    slots = graph_size(min(MOST, room // tokens_each(config)))
    return dataclasses.replace(config, engine=dataclasses.replace(config.engine, max_num_seqs=slots))


def tokens_each(config: Config) -> int:
    """Tokens that a sequence under way is counted with."""
    return -(-config.engine.max_model_len // 2)


def graph_size(sequences: int) -> int:
    """The largest batch with a CUDA graph of its own that is not larger than `sequences`; at least 1."""
    if sequences >= 8:
        return sequences - sequences % (16 if sequences >= 256 else 8)
    return next((size for size in (4, 2) if size <= sequences), 1)


def line(config: Config, shape: Shape) -> str:
    """What was decided, or given, for people."""
    room = kv_tokens(config, shape, WIDTHS.get(config.model.dtype, NUMBER))
    return (
        f"decoding: up to {config.engine.max_num_seqs} sequences at a time in each engine (engine.max_num_seqs); "
        f"its KV cache holds {room:,} tokens, {room // tokens_each(config):,} times half of engine.max_model_len"
    )
