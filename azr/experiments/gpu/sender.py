"""The learner of a check of pushes: the loop of a trainer rank, with weights that are changed instead of trained.

Each step changes one matrix element in a hundred by a draw from N(0, CHANGE²), so that a delta is small and log-probs
move by far more than two kernels differ. Equal seeds and devices give equal versions, whatever way they are pushed,
so all are made once more when the pushes are over, to score the answers that are then in SEAMS.json.
`python -m azr.experiments.gpu.sender SPEC.json ADDRESS SOCKETS TRANSPORT DELTA SEAMS.json OUT.json`
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from azr.experiments.gpu import crossed
from azr.experiments.gpu.pushes import INTAKE, PUSH_SECONDS, RUN, VERSIONS
from common.types import Float32Array, Int32Array, Share

if TYPE_CHECKING:
    from torch import Tensor

    from common.config import Config
    from common.messages import TensorMeta

CHANGED, CHANGE = 0.01, 0.1
PROBES, LENGTH = 8, 100
TOKENS = 4096  # scored at a time


class Changed:
    """A learner as learner.rank sees it."""

    def __init__(self, config: Config, device: str) -> None:
        import torch

        from learner.policy import load_policy

        self.device = torch.device(device)
        self.dtype = config.model.dtype
        self.policy = load_policy(Path(config.model.path), getattr(torch, self.dtype)).to(self.device)
        self.policy.requires_grad_(False)
        self.generator = torch.Generator(self.device).manual_seed(0)
        self.scores: list[list[Float32Array]] = []  # of the probe, by version

    def step(self, share: Share) -> dict[str, float]:
        import torch

        for parameter in self.policy.model.parameters():
            if parameter.dim() > 1:
                chosen = torch.rand(parameter.shape, device=self.device, generator=self.generator) < CHANGED
                change = torch.randn(parameter.shape, device=self.device, generator=self.generator) * CHANGE
                parameter += (change * chosen).to(parameter.dtype)
        return {}

    @property
    def tensors(self) -> tuple[TensorMeta, ...]:
        from common.messages import TensorMeta

        named = self.policy.model.named_parameters()
        return tuple(TensorMeta(name, self.dtype, tuple(parameter.shape)) for name, parameter in named)

    def weights(self) -> Iterator[list[tuple[str, Tensor]]]:
        yield list(self.policy.model.named_parameters())

    def score(self, sequences: Sequence[Int32Array]) -> list[Float32Array]:
        from learner.policy import score

        self.scores.append(score(self.policy, sequences, tokens=TOKENS, device=self.device))
        return self.scores[-1]

    @property
    def moves(self) -> list[float]:
        """Largest change of a log-prob of the probe from each version to the next."""
        pairs = zip(self.scores, self.scores[1:], strict=False)
        return [max(float(np.max(np.abs(a - b))) for a, b in zip(*pair, strict=True)) for pair in pairs]


def main(spec: Path, address: str, sockets: Path, transport: str, delta: bool, seams: Path, out: Path) -> int:
    from azr import model_folder
    from azr.experiments.gpu.settings import PRESET
    from azr.wiring import Endpoint, Network
    from common.config import load
    from common.ledger import Ledger
    from learner.link import LoopThread
    from learner.publisher import Publisher, Sending
    from learner.rank import train

    asked = json.loads(spec.read_text())
    config = load(PRESET, asked["settings"])
    learner = Changed(config, asked["device"])
    gpu = None
    if transport != "gloo":
        from common.device import Cuda

        gpu = Cuda(learner.device)
    random = np.random.default_rng(1)
    vocabulary = model_folder.shape(Path(config.model.path)).vocabulary
    probe = [random.integers(3, vocabulary, LENGTH).astype(np.int32) for _ in range(PROBES)]
    link = LoopThread("link")
    client = Network(RUN, config, sockets).client(Endpoint(address), "trainer", 0, None, INTAKE)
    link.call(client.connect(PUSH_SECONDS))
    publisher = Publisher(client, "127.0.0.1", PUSH_SECONDS, probe, Sending(transport, delta, True, gpu))
    pushing = link.spawn(publisher.run())
    train(
        0,
        0,
        learner,
        lambda message: link.call(client.request(message)),
        lambda version, weights, scores: publisher.hold(version, learner.tensors, weights, scores),
        lambda step: "",
        probe,
        Ledger("start"),
    )
    pushing.result(timeout=PUSH_SECONDS)
    link.call(client.close())
    link.close()
    out.write_text(json.dumps({"moves": learner.moves, "seams": _seams(Changed(config, asked["device"]), seams)}))
    return 0


def _seams(learner: Changed, file: Path) -> dict[str, Any]:
    """`learner` is at its first version."""
    answers = crossed.read(file)
    sequences = [answer.sequence for answer in answers]
    scores = [learner.score(sequences)]
    for version in range(VERSIONS):
        learner.step(Share(version, ()))
        scores.append(learner.score(sequences))
    return crossed.at_seams(answers, scores)


if __name__ == "__main__":
    spec, address, sockets, transport, delta, seams, out = sys.argv[1:]
    sys.exit(main(Path(spec), address, Path(sockets), transport, delta == "1", Path(seams), Path(out)))
