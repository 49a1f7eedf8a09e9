"""Everything around an engine that depends on vLLM's version.

For the versions of actors/vllm_version.py; docs/vllm.md says what was checked how. Its inside where weights are
replaced is in actors/vllm_worker.py. Traps that this module knows:

- On CPU a seeded request whose prefill is split over steps kills the engine: its generator has no offset.
- `generation_config="auto"` takes sampling defaults from the model folder without a word.
- On GPU it schedules a step while the one before still runs, and so does an LLMEngine that is stepped by hand: between
  two of its steps one may be under way, with the weights of before, whose tokens would count as those of after.
- It refuses to start where less than gpu_memory_utilization of a GPU is free, also if the size of the cache is given.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from typing import Any

import numpy as np
from vllm import RequestOutput, SamplingParams, envs
from vllm.config import VllmConfig
from vllm.distributed import cleanup_dist_env_and_memory
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.inputs import TokensPrompt
from vllm.platforms import current_platform
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.llm_engine import LLMEngine

from actors import vllm_version
from actors.engine import Completion
from actors.vllm_worker import WorkerExtension
from common.config import ModelConfig
from common.engine import EngineConfig
from common.errors import PartFailed
from common.types import Float32Array, Int32Array, Span

FIRST = -1  # priority of what all wait for; the smaller one is served first, and that of the others is 0
CPU_BLOCK = 32  # tokens; the smallest that CPU attention takes, and prompts here are short
GPU_STEP = 8192  # tokens of a step, prefills in chunks included: what vLLM's server takes on large GPUs
GPU_FREE = 0.01  # part of a GPU that must be free at the start; `azr check` plans the rest, and a learner may share it


def engine_args(engine: EngineConfig, model: ModelConfig, *, in_process: bool) -> AsyncEngineArgs:
    """vLLM's arguments for this project's promises. Sets what vLLM reads from the process environment."""
    on_cpu = current_platform.is_cpu()
    if in_process or on_cpu:
        # On CPU this also lets the core process run the model itself, at half the cost of a worker beside it.
        os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    arguments: dict[str, Any] = {
        "model": model.path,
        "dtype": model.dtype,
        "skip_tokenizer_init": True,
        "generation_config": "vllm",
        "logprobs_mode": "processed_logprobs",
        "max_num_seqs": engine.max_num_seqs,
        "max_model_len": engine.max_model_len,
        "kv_cache_memory_bytes": int(engine.kv_cache_gib * 2**30) // engine.tensor_parallel,  # of a GPU
        "enable_prefix_caching": engine.prefix_caching,
        "tensor_parallel_size": engine.tensor_parallel,
        "distributed_executor_backend": "mp" if engine.tensor_parallel > 1 else "uni",
        "scheduling_policy": "priority",
        "worker_extension_cls": f"{WorkerExtension.__module__}.{WorkerExtension.__qualname__}",
        "disable_log_stats": True,
    }
    if on_cpu:
        arguments |= {
            "enforce_eager": True,
            "block_size": CPU_BLOCK,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(2048, engine.max_model_len + engine.max_num_seqs),
        }
    else:
        arguments |= {
            "gpu_memory_utilization": GPU_FREE,
            "max_num_batched_tokens": max(GPU_STEP, engine.max_num_seqs),
        }
    if in_process:
        arguments["async_scheduling"] = False
    unknown = arguments.keys() - {field.name for field in dataclasses.fields(AsyncEngineArgs)}
    if unknown:
        what = f"vLLM {vllm_version.installed()} does not know {', '.join(sorted(unknown))}"
        raise PartFailed("vllm", what, hint=f"install {vllm_version.SUPPORTED}")
    return AsyncEngineArgs(**arguments)


def check_config(config: VllmConfig) -> None:
    """The sampling distribution must be the model's own, or log-probs do not belong to the tokens."""
    model = config.model_config
    assert model.generation_config == "vllm", model.generation_config
    assert model.logprobs_mode == "processed_logprobs", model.logprobs_mode
    assert not model.get_diff_sampling_param(), model.get_diff_sampling_param()


def stop_tokens(config: VllmConfig) -> list[int]:
    """Ids that end an answer, from config.json and generation_config.json of the model folder."""
    model = config.model_config
    found: set[int] = set()
    for ids in (
        getattr(model.hf_text_config, "eos_token_id", None),
        model.try_get_generation_config().get("eos_token_id"),
    ):
        found.update([ids] if isinstance(ids, int) else ids or [])
    if not found:
        raise PartFailed("model", f"{model.model} names no eos_token_id: no answer would ever end")
    return sorted(found)


def salt(engine: EngineConfig, version: int) -> str:
    """Of requests that `version` begins to serve; empty if the prefix cache knows no versions."""
    return str(version) if engine.prefix_caching and engine.kv == "salt" else ""


def prompt_of(tokens: Int32Array, salt: str) -> TokensPrompt:
    """`salt` separates prefix caches: blocks made under one are never served under another."""
    prompt = TokensPrompt(prompt_token_ids=tokens.tolist())
    if salt:
        prompt["cache_salt"] = salt
    return prompt


def sampling(*, temperature: float, seed: int, max_tokens: int, stop: list[int]) -> SamplingParams:
    return SamplingParams(
        temperature=temperature,
        top_p=1.0,
        top_k=0,
        min_p=0.0,
        seed=seed,
        max_tokens=max_tokens,
        stop_token_ids=stop,
        logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def scoring() -> SamplingParams:
    """One forward pass over the sequence; prompt log-probs also keep vLLM from reading its prefix cache."""
    return SamplingParams(
        temperature=0.0,
        max_tokens=1,
        prompt_logprobs=0,
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,
    )


def completion(output: RequestOutput, spans: tuple[Span, ...]) -> Completion:
    answer = output.outputs[0]
    tokens = np.asarray(answer.token_ids, dtype=np.int32)
    logprobs = np.asarray(answer.logprobs.logprobs if answer.logprobs else [], dtype=np.float32)
    assert len(tokens) == len(logprobs), (len(tokens), len(logprobs))
    return Completion(tokens, logprobs, spans, answer.finish_reason or "abort")


def scores(output: RequestOutput) -> Float32Array:
    logprobs = output.prompt_logprobs
    assert logprobs is not None and len(logprobs.logprobs) == len(output.prompt_token_ids) - 1
    return np.asarray(logprobs.logprobs, dtype=np.float32)


def sampled(llm: LLMEngine | AsyncLLM) -> dict[str, int]:
    """Tokens so far of each request that is running, by the name it was given; may be asked from another thread than
    the engine's."""
    states = list(llm.output_processor.request_states.values())  # one step of the interpreter: it does not change
    return {state.external_req_id: state.detokenizer.num_output_tokens() for state in states}


async def pause(llm: AsyncLLM, slots: int, *, clear_cache: bool) -> None:
    """Return when no step is under way and `sampled` knows every token; requests are kept, until `resume_generation`.

    The core grants it when all steps are over, and answers on one socket and in order: tokens that it had sent are in
    this process then. But they may still wait for vLLM's output task, or be in it: that takes the outputs of a step, of
    `slots` requests at most, in chunks, and lets others run between two of them. It tells nobody when it is done;
    AsyncLLM.pause_generation sleeps 20 ms instead.
    """
    await llm.engine_core.pause_scheduler_async("keep", clear_cache)
    while not llm.engine_core.outputs_queue.empty():  # noqa: ASYNC110
        await asyncio.sleep(0)
    for _ in range(-(-slots // envs.VLLM_V1_OUTPUT_PROC_CHUNK_SIZE)):
        await asyncio.sleep(0)


def in_process_engine(arguments: AsyncEngineArgs) -> LLMEngine:
    """An engine whose model runs in the calling thread, inside `step`."""
    config = arguments.create_engine_config()
    check_config(config)
    return LLMEngine.from_vllm_config(config, disable_log_stats=True)


def end_in_process_engine(llm: LLMEngine) -> None:
    """Free what the engine holds of the process, so that another one can be made."""
    llm.engine_core.shutdown()
    cleanup_dist_env_and_memory()


def async_engine(engine: EngineConfig, model: ModelConfig) -> AsyncLLM:
    """An engine whose model runs in child processes; blocks until they are up."""
    config = engine_args(engine, model, in_process=False).create_engine_config()
    check_config(config)
    try:
        return AsyncLLM.from_vllm_config(config, disable_log_stats=True)
    except RuntimeError as error:
        raise PartFailed("engine", f"vLLM did not start: {error}", hint="the actor's log has its traceback") from error


def end_async_engine(llm: AsyncLLM) -> None:
    """Stop the engine's processes. Blocks the event loop, in seconds, lest vLLM's tasks take this for a crash."""
    resources = llm.engine_core.resources
    llm.shutdown()
    for process in resources.engine_manager.processes:
        process.join()
    resources.ctx.destroy(linger=0)


async def death(llm: AsyncLLM) -> PartFailed:
    """Return when the engine's processes are gone. vLLM's output task ends then, and only then."""
    assert llm.output_handler is not None
    await asyncio.wait([llm.output_handler])
    return PartFailed("engine", "vLLM's engine core died", hint="the actor's log has its traceback")
