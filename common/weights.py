"""How weights get from the learner to the engines (docs/weights.md)."""

from __future__ import annotations

from dataclasses import dataclass

TRANSPORTS = ("auto", "gloo", "nccl", "ipc")


@dataclass(frozen=True)
class WeightsConfig:
    transport: str = "auto"  # gloo (host memory) | nccl (GPU to GPU) | ipc (mapped, on one GPU) | auto: by placement
    delta: bool = False  # only numbers that changed travel, where that is less; for bfloat16
    checksum: bool = True  # the learner's of the staged bytes is compared with every actor's before anything is loaded

    def carrier(self, placement: str, engines: int) -> str:
        """The transport that is meant, never auto.

        On shared GPUs only the engine beside trainer rank 0 can map its weights: the others see another GPU.
        """
        if self.transport != "auto":
            return self.transport
        return {"disjoint": "nccl", "shared": "ipc" if engines == 1 else "gloo"}.get(placement, "gloo")

    def rules(self, placement: str, engines: int) -> list[tuple[bool, str]]:
        """What must hold of a run with this cluster.placement and engine.actors, and what to say if it does not."""
        carrier = self.carrier(placement, engines)
        return [
            (self.transport in TRANSPORTS, "weights.transport must be auto, gloo, nccl or ipc"),
            (
                carrier == "gloo" or placement != "cpu",
                f"weights.transport={carrier} moves weights between GPUs, and with cluster.placement=cpu there are "
                "none: set it to auto or gloo, or set cluster.placement",
            ),
            (
                carrier != "ipc" or placement != "disjoint",
                "weights.transport=ipc maps memory of the learner's GPU, which engines with cluster.placement=disjoint "
                "do not see: set it to auto or nccl",
            ),
            (
                carrier != "ipc" or engines == 1,
                "weights.transport=ipc serves the one engine on the GPU of trainer rank 0: set engine.actors=1, or "
                "weights.transport to auto or gloo",
            ),
            (
                not self.delta or carrier != "ipc",
                "weights.delta saves what travels, and with weights.transport=ipc nothing does: set one of them",
            ),
            (
                not self.delta or self.checksum,
                "weights.delta patches what an engine holds, which only weights.checksum can prove right: set both",
            ),
        ]
