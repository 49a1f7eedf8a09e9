"""Attention within the sequences of a packed row (learner/packing.py), as transformers' models call it by name.

On a GPU in half precision FlashAttention for sequences of unlike lengths runs, as torch carries it
(`torch.nn.attention.varlen`, Dao, arXiv 2307.08691); elsewhere torch's attention for each sequence in turn. Neither
builds a mask, nor copies keys and values where several query heads share them.
Invariant: a model that does not hand the bounds down, or wants more than causal attention, fails with the first call,
never silently.
Not guaranteed: bit-equal gradients on a GPU, where FlashAttention adds up in any order, unless
torch.use_deterministic_algorithms says otherwise.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PretrainedConfig

PACKED = "packed_sequences"  # no name of transformers' own may be part of it: it would look for that kernel
EXTRAS = "sliding_window", "softcap", "s_aux", "position_bias", "cache"  # what models ask of attention beyond a mask
CAUSAL = (-1, 0)  # window: all that stands left, nothing right
# torch 2.11 has no such argument: its kernel takes fewer heads of keys than of queries as they come.
SHARED_HEADS: dict[str, Any] = {"enable_gqa": True} if "enable_gqa" in inspect.signature(varlen_attn).parameters else {}

FULL_ATTENTION = "full_attention"  # in `layer_types` of a model's config
# Settings of models that do not say it layer by layer: how far back a token sees, or layers of other kinds.
WINDOWS = "sliding_window", "attention_window_size", "window_size", "attention_chunk_size"
OTHER_LAYERS = "layers_block_type", "block_types", "attn_layer_period"


def apart(config: PretrainedConfig) -> list[str]:
    """What in a model's config forbids several answers in a row; empty if nothing does.

    A mask or bounds take the place of a window, and layers that are no attention read neither: both would be silently
    wrong.
    """
    kinds = getattr(config, "layer_types", None)
    if kinds:
        return sorted(set(kinds) - {FULL_ATTENTION})
    return [name for name in (*WINDOWS, *OTHER_LAYERS) if getattr(config, name, None) is not None]


def bounds_of(bounds: Tensor, longest: int) -> dict[str, Any]:
    """What transformers' models hand down to their attention. `bounds` [S + 1] int32: where sequences begin and end."""
    return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}


def packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: int = 0,
    **more: Any,
) -> tuple[Tensor, None]:
    """Of `query` [1, H, N, D], `key` and `value` [1, G, N, D]: [1, N, H, D]. G divides H.

    NotImplementedError if the model does not say where sequences begin, or asks for something else than plain causal
    attention.
    """
    extra = sorted(name for name in EXTRAS if more.get(name) is not None)
    if cu_seq_lens_q is None or attention_mask is not None or dropout or extra:
        raise NotImplementedError(
            f"{type(module).__name__} gives attention {'a mask' if attention_mask is not None else 'no mask'}, "
            f"{'no bounds' if cu_seq_lens_q is None else 'bounds'}, dropout {dropout} and {extra or 'no more'}"
        )
    attend = _flash if _has_kernel(query) else _by_sequence
    return attend(query, key, value, cu_seq_lens_q, max_length_q, scaling).transpose(1, 2), None


def _has_kernel(query: Tensor) -> bool:
    half = query.dtype in (torch.float16, torch.bfloat16)
    return half and query.device.type != "cpu" and query.shape[-1] % 8 == 0 and query.shape[-1] <= 256


def _flash(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, longest: int, scale: float | None) -> Tensor:
    q, k, v = (tensor.squeeze(0).transpose(0, 1).contiguous() for tensor in (query, key, value))  # [N, heads, D]
    out = varlen_attn(q, k, v, bounds, bounds, longest, longest, scale=scale, window_size=CAUSAL, **SHARED_HEADS)
    assert isinstance(out, Tensor)
    return out.transpose(0, 1).unsqueeze(0)


@torch.compiler.disable(reason="as many calls as there are sequences")  # type: ignore[no-untyped-call,untyped-decorator]
def _by_sequence(query: Tensor, key: Tensor, value: Tensor, bounds: Tensor, _: int, scale: float | None) -> Tensor:
    """Reads `bounds` on the host, which waits for a GPU."""
    shared = query.shape[1] != key.shape[1]
    lengths = bounds.diff().tolist()
    parts = zip(*(torch.split(tensor, lengths, 2) for tensor in (query, key, value)), strict=True)
    found = [scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=shared) for q, k, v in parts]
    return torch.cat(found, 2)


# Under a name for which transformers knows no mask it makes none (`_preprocess_mask_arguments`, 5.17 and 5.19).
AttentionInterface.register(PACKED, packed_attention)
