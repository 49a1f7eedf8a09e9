"""The learner's part of a GPU that an engine is on: what azr/memory.py does not reckon for the engine.

Without a limit torch's allocator keeps whatever it once had, and the engine's next buffer would find no room.
Not limited: CUDA's own context, for which CONTEXT is left.
"""

from __future__ import annotations

from pathlib import Path

from azr import architecture, model_folder
from azr.memory import GIB, engine
from common.config import Config
from common.errors import PartFailed

CONTEXT = GIB


def share(total: int, served: int) -> float:
    """The learner's share, 0–1, of a GPU of `total` bytes, of which the engine has `served`. PartFailed if none."""
    rest = total - served - CONTEXT
    if rest <= 0:
        raise PartFailed(
            "placement",
            f"the engine takes {served / GIB:.1f} of {total / GIB:.1f} GiB of a GPU: nothing is left for the learner",
            hint="a smaller engine.kv_cache_gib, or cluster.placement=disjoint",
        )
    return rest / total


def keep_to_share(config: Config) -> None:
    """Limit this process, a trainer rank with cluster.placement=shared. Starts CUDA."""
    import torch

    folder = Path(config.model.path)
    need = engine(config, architecture.read(folder, model_folder.shape(folder)))
    device = torch.cuda.current_device()
    total = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(share(total, need.total), device)
