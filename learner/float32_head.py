"""A vocabulary head that computes in float32 whatever the model's precision (learner.head_float32).

Logits are sums over the whole hidden size and in bfloat16 have three decimal digits: at 20 the next number is 20.125,
an error of 6 % in a probability. Weights stay as they are, tied or not; both factors are cast for the product.
Invariant: the weight is read in `forward` alone, where ZeRO-3 has it gathered, and keeps its name.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel


class Float32Head(torch.nn.Module):
    """`head` with logits [n, V] in float32 from hidden states [n, h]; shares its parameters."""

    def __init__(self, head: torch.nn.Linear) -> None:
        super().__init__()
        self.weight = head.weight
        self.bias = head.bias

    def forward(self, hidden: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.float()
        return functional.linear(hidden.float(), self.weight.float(), bias)


def compute_head_in_float32(model: PreTrainedModel) -> None:
    """Replace the vocabulary head of `model`."""
    head = model.get_output_embeddings()
    assert isinstance(head, torch.nn.Linear)
    model.set_output_embeddings(Float32Head(head))
