"""What `learner.compile` compiles: each layer of the model, and the scores of tokens given their logits.

All layers share one graph, since they differ in weights alone, and shapes are symbols in it, so micro-batches of any
size run what the first one compiled; scoring without gradients compiles once more. What is gained is in the work
between matrix products: in a graph it reads and writes its operands once. The head's product itself is left alone.
Sizes of one or none would have graphs of their own; callers spare them. Attention without a kernel breaks the graph.
Not guaranteed: bits equal to those of a run that does not compile. Not covered: ZeRO-3, whose hooks break the graph at
every module of every layer (refused: common/learner.py).
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer


def compile_layers(model: PreTrainedModel) -> int:
    """In place; how many there are. What is checkpointed is the compiled layer."""
    layers = [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers:
        layer.compile(dynamic=True)
    return len(layers)


@torch.compile(dynamic=True)
def fused_scores(logits: Tensor, targets: Tensor, entropy_gradient: bool) -> tuple[Tensor, Tensor]:
    """Log-probs of `targets` [n] and entropies, float32 [n] each, of `logits` [n, V] in any precision.

    Written for one pass over the logits: a target is found by comparison, since the gradient of a gather is a scatter
    into another [n, V]. Kept for the backward pass are the logits as they are and their log-sum-exp.
    """
    logits = logits.float()
    total = logits.logsumexp(-1, keepdim=True)
    chosen = torch.arange(logits.shape[1], device=logits.device) == targets[:, None]
    logprobs = logits.where(chosen, 0.0).sum(-1) - total.squeeze(-1)
    every = logits - total if entropy_gradient else (logits - total).detach()
    return logprobs, -(every.exp() * every).sum(-1)
