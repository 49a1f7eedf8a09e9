"""Has a vLLM all names that actors/vllm_compat.py and actors/vllm_worker.py use? Read from its sources.

    python -m tests.actors.vllm_names FOLDER …

with folders that hold `vllm/`, such as an unzipped wheel, says what each lacks. It tells that something is gone, not
that it means something else: docs/vllm.md says what has to be read besides.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

# file → class, function or Class.method → its fields, attributes and methods, or its parameters
EXPECTED: dict[str, dict[str, tuple[str, ...]]] = {
    "engine/arg_utils.py": {
        "EngineArgs": (
            *("model", "dtype", "skip_tokenizer_init", "generation_config", "logprobs_mode", "max_num_seqs"),
            *("max_model_len", "kv_cache_memory_bytes", "enable_prefix_caching", "distributed_executor_backend"),
            *("scheduling_policy", "worker_extension_cls", "disable_log_stats", "enforce_eager", "block_size"),
            *("enable_chunked_prefill", "max_num_batched_tokens", "gpu_memory_utilization", "async_scheduling"),
            *("tensor_parallel_size", "create_engine_config"),
        ),
        "AsyncEngineArgs": (),
    },
    "sampling_params.py": {
        "SamplingParams": (
            *("temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "stop_token_ids", "logprobs"),
            *("prompt_logprobs", "flat_logprobs", "detokenize", "output_kind"),
        ),
        "RequestOutputKind": ("FINAL_ONLY",),
    },
    "logprobs.py": {"FlatLogprobs": ("logprobs",)},
    "outputs.py": {
        "RequestOutput": ("request_id", "prompt_token_ids", "prompt_logprobs", "outputs", "finished"),
        "CompletionOutput": ("token_ids", "logprobs", "finish_reason"),
    },
    "config/vllm.py": {"VllmConfig": ("model_config",)},
    "config/model.py": {
        "ModelConfig": (
            *("model", "generation_config", "logprobs_mode", "hf_text_config"),
            *("get_diff_sampling_param", "try_get_generation_config"),
        ),
    },
    "v1/engine/async_llm.py": {
        "AsyncLLM": (
            "output_processor",
            "output_handler",
            "engine_core",
            "vllm_config",
            "resume_generation",
            "shutdown",
        ),
        "AsyncLLM.from_vllm_config": ("vllm_config", "disable_log_stats"),
        "AsyncLLM.generate": ("prompt", "sampling_params", "request_id", "priority"),
        "AsyncLLM.pause_generation": ("mode", "clear_cache"),
        "AsyncLLM.collective_rpc": ("method", "args"),
    },
    "v1/engine/llm_engine.py": {
        "LLMEngine": ("output_processor", "engine_core", "vllm_config", "step", "has_unfinished_requests"),
        "LLMEngine.from_vllm_config": ("vllm_config", "disable_log_stats"),
        "LLMEngine.add_request": ("request_id", "prompt", "params", "priority"),
        "LLMEngine.abort_request": ("request_ids",),
        "LLMEngine.collective_rpc": ("method", "args"),
        "LLMEngine.reset_prefix_cache": ("reset_running_requests",),
    },
    "v1/engine/core.py": {"EngineCoreProc.pause_scheduler": ("mode", "clear_cache")},
    "v1/engine/core_client.py": {
        "AsyncMPClient": ("outputs_queue",),
        "AsyncMPClient.pause_scheduler_async": ("mode", "clear_cache"),
        "BackgroundResources": ("ctx", "engine_manager"),
    },
    "v1/engine/output_processor.py": {
        "OutputProcessor": ("request_states",),
        "RequestState": ("external_req_id", "detokenizer"),
    },
    "v1/engine/detokenizer.py": {"IncrementalDetokenizer": ("num_output_tokens",)},
    "v1/engine/exceptions.py": {"EngineDeadError": (), "EngineGenerateError": ()},
    "distributed/parallel_state.py": {"cleanup_dist_env_and_memory": ()},
    "model_executor/model_loader/reload/layerwise.py": {
        "initialize_layerwise_reload": ("model",),
        "finalize_layerwise_reload": (),
    },
    "v1/worker/gpu_model_runner.py": {"GPUModelRunner": ("get_model",)},
    "v1/worker/gpu/model_runner.py": {"GPUModelRunner": ("get_model",)},
}
# file or folder → words that must stand in it
WORDS = {
    "inputs": ("class TokensPrompt", "cache_salt"),
    "envs.py": (
        *("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_V1_OUTPUT_PROC_CHUNK_SIZE", "VLLM_WORKER_MULTIPROC_METHOD"),
        *("VLLM_USE_FLASHINFER_SAMPLER", "VLLM_CPU_OMP_THREADS_BIND", "VLLM_NO_USAGE_STATS", "VLLM_LOGGING_LEVEL"),
    ),
    "platforms/__init__.py": ("current_platform",),
}


def lacks(package: Path) -> list[str]:
    """What the vLLM whose sources are in `package` has not, as file: name."""
    lost = []
    for file, expected in EXPECTED.items():
        for name, inner in expected.items():
            found = _found(package / file, name)
            if found is None:
                lost.append(f"{file}: {name}")
            else:
                lost += [f"{file}: {name}.{word}" for word in inner if word not in found]
    for place, words in WORDS.items():
        files = [package / place] if place.endswith(".py") else sorted((package / place).rglob("*.py"))
        text = "".join(file.read_text() for file in files if file.exists())
        lost += [f"{place}: {word}" for word in words if word not in text]
    return lost


@cache
def _tree(file: Path) -> ast.Module | None:
    return ast.parse(file.read_text()) if file.exists() else None


def _found(file: Path, name: str) -> set[str] | None:
    """Names inside `name`, which may be Class.method; None if it is not in the file."""
    scope: ast.AST | None = _tree(file)
    for part in name.split("."):
        inside = list(ast.iter_child_nodes(scope)) if scope is not None else []
        scope = next((node for node in inside if _is_named(node, part)), None)
    if scope is None:
        return None
    return set(_members(scope)) if isinstance(scope, ast.ClassDef) else set(_parameters(scope))


def _is_named(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name


def _members(scope: ast.ClassDef) -> Iterator[str]:
    for node in ast.walk(scope):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                yield name
            case ast.AnnAssign(target=ast.Name(id=name)) | ast.AnnAssign(target=ast.Attribute(attr=name)):
                yield name
            case ast.Assign(targets=targets):
                for target in targets:
                    match target:
                        case ast.Name(id=name) | ast.Attribute(value=ast.Name(id="self"), attr=name):
                            yield name


def _parameters(scope: ast.AST) -> Iterator[str]:
    assert isinstance(scope, ast.FunctionDef | ast.AsyncFunctionDef)
    yield from (argument.arg for argument in (*scope.args.args, *scope.args.kwonlyargs))


if __name__ == "__main__":
    missing = {folder: lacks(Path(folder) / "vllm") for folder in sys.argv[1:]}
    for folder, names in missing.items():
        print(f"{folder}: {', '.join(names) or 'lacks nothing'}")
    sys.exit(any(missing.values()))
