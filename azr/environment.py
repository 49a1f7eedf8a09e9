"""Variables that a process of a run must have before it imports torch, DeepSpeed or vLLM.

Ray tells a process its GPUs in CUDA_VISIBLE_DEVICES, but says nothing to one that has none; here it is told so.
"""

from __future__ import annotations

from importlib.util import find_spec


def environment(role: str, *, gpus: bool) -> dict[str, str]:
    """`gpus`: whether trainer ranks and engines of this run have GPUs."""
    has = gpus and role in ("trainer", "actor")
    found = {} if has else {"CUDA_VISIBLE_DEVICES": ""}
    if role == "trainer":
        found["DS_ACCELERATOR"] = "cuda" if has else "cpu"
    if role == "actor" and find_spec("flashinfer") is None:
        found["VLLM_USE_FLASHINFER_SAMPLER"] = "0"  # vLLM would choose it for the GPU, not for being there
    return found
