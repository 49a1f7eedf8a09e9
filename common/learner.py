"""Settings of the learner: ranks, optimiser, memory, checkpoints. Those of the loss are in common/off_policy.py."""

from __future__ import annotations

from dataclasses import dataclass

from common.off_policy import OffPolicyConfig


@dataclass(frozen=True)
class LearnerConfig(OffPolicyConfig):
    kind: str = "deepspeed"  # deepspeed | none: no trainer, groups are acknowledged and discarded
    steps: int = 80
    ranks: int = 1
    zero_stage: int = 0
    lr: float = 5e-4
    warmup_steps: int = 5
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    grad_clip: float = 1.0
    micro_batch_tokens: int = 4096
    save_every: int = 20  # steps; the last step is always saved
    keep_checkpoints: int = 2
    checkpoint_activations: bool = False  # keep the input of each layer alone and compute the rest again, for memory
    head_tokens: int = 0  # so many have logits at a time, which are computed again, for memory (0: all, once)
    head_float32: bool = False  # logits computed in float32 whatever model.dtype (learner/float32_head.py)
    offload_optimizer: bool = False  # masters and AdamW's moments in host memory, updated there (zero_stage 1 to 3)
    share_prompts: bool = False  # train the answers to a prompt behind one copy of it (learner/prompt_rows.py)
    packing: bool = False  # a micro-batch is one row of sequences end to end, without padding (docs/learner.md)
    compile: bool = False  # torch.compile each layer and the scores of tokens (learner/compilation.py)
    threads: int = 1
    probe_tolerance: float = 1e-3  # largest |log-prob difference| between engine and learner after a push

    @property
    def trainers(self) -> int:
        """Processes that train."""
        return self.ranks if self.kind != "none" else 0

    @property
    def rules(self) -> list[tuple[bool, str]]:
        """What must hold, and what to say if it does not."""
        return [
            (self.kind in ("deepspeed", "none"), "learner.kind must be deepspeed or none"),
            (self.zero_stage in (0, 1, 2, 3), "learner.zero_stage must be 0, 1, 2 or 3"),
            (
                self.zero_stage > 0 or not self.offload_optimizer,
                "learner.offload_optimizer needs a learner.zero_stage of 1, 2 or 3",
            ),
            (self.steps >= 1, "learner.steps must be at least 1"),
            (self.ranks >= 1, "learner.ranks must be at least 1"),
            (self.micro_batch_tokens >= 1, "learner.micro_batch_tokens must be at least 1"),
            (self.head_tokens >= 0, "learner.head_tokens must be at least 0 (0: all)"),
            (
                not (self.packing and self.share_prompts),
                "learner.packing and learner.share_prompts exclude each other, since in a packed row no sequence sees "
                "another: set one of them to false",
            ),
            (
                not (self.compile and self.zero_stage == 3),
                "learner.compile does not go with learner.zero_stage 3, whose hooks break the graph of each layer: set "
                "learner.compile=false, or a zero_stage of 2 at most",
            ),
            (self.save_every >= 0, "learner.save_every must be at least 0 (0: only the last step)"),
            (
                self.keep_checkpoints >= 2,
                "learner.keep_checkpoints must be at least 2: the newest one is not in force until the intake has "
                "recorded it",
            ),
            (self.threads >= 1, "learner.threads must be at least 1"),
            *self.off_policy_rules,
        ]
