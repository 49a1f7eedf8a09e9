"""Variables that a process of a run must have before it imports torch, DeepSpeed or vLLM.

Ray tells a process its GPUs in CUDA_VISIBLE_DEVICES, but says nothing to one that has none; here it is told so. What
vLLM needs besides is in actors/engine.py.
"""

from __future__ import annotations


def environment(role: str, *, gpus: bool) -> dict[str, str]:
    """`gpus`: whether trainer ranks and engines of this run have GPUs."""
    has = gpus and role in ("trainer", "actor")
    found = {} if has else {"CUDA_VISIBLE_DEVICES": ""}
    if role == "trainer":
        found["DS_ACCELERATOR"] = "cuda" if has else "cpu"
    return found
