"""One engine of a check, in a process of its own: `python -m azr.experiments.gpu.served SPEC.json`.

It starts as configured, answers as many requests as it takes at once, each of full length, and tells what it holds:
memory of the GPU as nvidia-smi counts it for the whole device, and its own resident memory on the host.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from azr.experiments.gpu import children
from azr.experiments.gpu.claims import Request

if TYPE_CHECKING:
    from common.config import Config

REQUESTS = {"cuda": 256, "cpu": 8}


@dataclass(frozen=True)
class Served:
    """Bytes more on the GPU than before it started; bytes resident on the host; tokens and seconds of answering."""

    gpu: int
    host: int
    tokens: int
    seconds: float


def served(request: Request, name: str, settings: Sequence[str], seconds: float = 300.0) -> Served:
    folder = request.work / name
    folder.mkdir(parents=True, exist_ok=True)
    spec = folder / "engine.json"
    spec.write_text(json.dumps({"settings": list(settings), "requests": REQUESTS[request.device]}))
    before = gpu_used() if request.on_gpu else 0
    command = [sys.executable, "-m", "azr.experiments.gpu.served", str(spec)]
    children.perform([command], [folder / "engine.log"], children.environment(request.device), seconds)
    told = json.loads((folder / "served.json").read_text())
    return Served(told["gpu"] - before, told["host"], told["tokens"], told["seconds"])


def gpu_used() -> int:
    """Bytes in use on the first GPU, by whomever."""
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    return int(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0]) << 20


def main(spec: Path) -> int:
    from azr.experiments.gpu.settings import PRESET
    from common.config import load

    asked = json.loads(spec.read_text())
    config = load(PRESET, asked["settings"])
    from actors.engine import environment

    os.environ.update(environment(config.engine.threads))
    tokens, seconds, gpu = asyncio.run(_serve(config, asked["requests"]))
    own = [resource.getrusage(who).ru_maxrss << 10 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = {"gpu": gpu, "host": max(own), "tokens": tokens, "seconds": seconds}
    (spec.parent / "served.json").write_text(json.dumps(found))
    return 0


async def _serve(config: Config, requests: int) -> tuple[int, float, int]:
    from actors.engine import create
    from azr.footprint import on_gpus

    engine = create(config.engine, config.model)
    await engine.start()
    longest = config.engine.max_tokens
    prompts = np.random.default_rng(0).integers(3, 400, (requests, config.engine.max_model_len - longest))
    began = time.perf_counter()
    answers = await asyncio.gather(
        *(
            engine.generate(prompt.astype(np.int32), n=1, temperature=1.0, seed=i, max_tokens=longest)
            for i, prompt in enumerate(prompts)
        )
    )
    seconds = time.perf_counter() - began
    gpu = gpu_used() if on_gpus(config) else 0
    await engine.close()
    return sum(len(answer.tokens) for of_one in answers for answer in of_one), seconds, gpu


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
