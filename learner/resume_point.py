"""Where a run would continue: its newest durable checkpoint, named in checkpoints/latest.json; and where else one
could begin. Without torch.

Invariant: the file names a checkpoint that is wholly on disk, also after a loss of power.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from learner.durable import sync


def record_checkpoint(run: Path, step: int, path: str, eta: int | None = None) -> None:
    """The checkpoint of `step` batches at `path`, relative to the run folder, is durable; `eta` was in force then."""
    target = run / "checkpoints" / "latest.json"
    target.parent.mkdir(exist_ok=True)
    partial = target.with_suffix(".part")
    with partial.open("w") as file:
        file.write(json.dumps({"step": step, "path": path} | ({} if eta is None else {"eta": eta})))
        file.flush()
        os.fsync(file.fileno())
    partial.rename(target)
    sync(target.parent)


def latest_checkpoint(run: Path) -> tuple[int, Path | None]:
    """(step, folder of the newest durable checkpoint) of a run folder; (0, None), the base model, before the first."""
    path = run / "checkpoints" / "latest.json"
    if not path.exists():
        return 0, None
    found = json.loads(path.read_text())
    return int(found["step"]), run / found["path"]


def kept_checkpoints(run: Path) -> dict[int, Path]:
    """Batches trained → folder, of every whole checkpoint in a run folder, the oldest first."""
    found = sorted((run / "checkpoints").glob("step-*[0-9]"))
    return {int(path.name.removeprefix("step-")): path for path in found if (path / "trainer.json").exists()}


def latest_eta(run: Path, otherwise: int) -> int:
    """η that was in force at the newest durable checkpoint; `otherwise` if none says so."""
    path = run / "checkpoints" / "latest.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    return int(found.get("eta", otherwise))
