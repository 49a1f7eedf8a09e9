"""Variables that a process of a run must have before it imports torch, DeepSpeed or vLLM.

Ray tells a process its GPUs in CUDA_VISIBLE_DEVICES, but says nothing to one that has none; here it is told so. What
vLLM needs besides is in actors/engine.py.
"""

from __future__ import annotations

from common.errors import PartFailed


def environment(role: str, *, gpus: bool) -> dict[str, str]:
    """`gpus`: whether trainer ranks and engines of this run have GPUs."""
    has = gpus and role in ("trainer", "actor")
    found = {} if has else {"CUDA_VISIBLE_DEVICES": ""}
    if role == "trainer":
        found["DS_ACCELERATOR"] = "cuda" if has else "cpu"
    return found


def alone_on(index: int, visible: str | None) -> dict[str, str]:
    """Of a process that Ray does not place: one of the GPUs `visible` (CUDA_VISIBLE_DEVICES; None: all), from 0.

    PartFailed if there are fewer.
    """
    names = [name.strip() for name in visible.split(",") if name.strip()] if visible is not None else None
    if names is not None and index >= len(names):
        raise PartFailed(
            "placement",
            f"CUDA_VISIBLE_DEVICES={visible} names {len(names)} GPUs, and {index + 1} are needed",
            hint="more of them, or cluster.placement=cpu",
        )
    return {"CUDA_VISIBLE_DEVICES": names[index] if names else str(index)}
