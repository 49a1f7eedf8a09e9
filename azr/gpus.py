"""Which GPUs this machine has, as NVIDIA's own tool tells; CUDA is not started.

Not looked at: CUDA_VISIBLE_DEVICES, GPUs of other makers, and what is free on the other machines of a cluster.
"""

from __future__ import annotations

import subprocess

_QUERY = ("nvidia-smi", "--query-gpu=memory.free", "--format=csv,noheader,nounits")
_SECONDS = 20.0


def found() -> tuple[int, ...]:
    """Free bytes of each GPU; empty where there is none, or its driver does not answer."""
    try:
        asked = subprocess.run(_QUERY, capture_output=True, text=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return ()
    return parse(asked.stdout)


def parse(text: str) -> tuple[int, ...]:
    """MiB, one GPU a line, to bytes. A GPU that does not tell its memory counts as one that has none free."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return tuple((int(line) << 20) if line.isdigit() else 0 for line in lines)
