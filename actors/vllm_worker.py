"""How staged weights get into the model of a vLLM worker, and what depends on vLLM's insides there.

Weights are replaced by vLLM's layerwise reload in one call to every worker, which no decoding step can interrupt. Traps
that this module knows:

- On CPU a linear layer keeps a prepacked copy of its weight. The reload renews it for every layer that received
  tensors of its own, but a tied lm_head receives none and would go on computing with its first weights.
- A plain `model.load_weights` on prepacked layers fails half way. A failed reload cannot be undone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from vllm.config import VllmConfig, set_current_vllm_config
from vllm.model_executor.model_loader.reload import finalize_layerwise_reload, initialize_layerwise_reload

from actors.receiver import Staged
from actors.staging import Source, opened
from common.collective import unflatten
from common.config import ModelConfig
from common.errors import PartFailed
from common.messages import TensorMeta


def schema(model: ModelConfig) -> dict[str, TensorMeta]:
    """The tensors of a push by checkpoint name: what a learner of this model holds, tied weights once."""
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(model.path)
    except (OSError, ValueError) as error:
        raise PartFailed("model", f"{model.path} holds no model: {error}", hint="check model.path") from error
    with torch.device("meta"):
        skeleton = AutoModelForCausalLM.from_config(config)
    return {
        name: TensorMeta(name, model.dtype, tuple(parameter.shape)) for name, parameter in skeleton.named_parameters()
    }


def wire_form(staged: Staged, *, own_process: bool) -> tuple[Source, list[tuple[str, str, list[int]]]]:
    """Arguments of `WorkerExtension.load_staged`, in types that vLLM's message coder takes if the worker is in another
    process."""
    return staged.source(own_process=own_process), [
        (meta.name, meta.dtype, list(meta.shape)) for meta in staged.tensors
    ]


class WorkerExtension:
    """Methods that vLLM mixes into its worker class, in whichever process that runs."""

    vllm_config: VllmConfig
    model_runner: Any

    def load_staged(self, source: Source, tensors: Sequence[tuple[str, str, Sequence[int]]]) -> float:
        """Replace all weights by those in the buffer at `source`; returns the seconds it took."""
        begin = time.perf_counter()
        metas = [TensorMeta(name, dtype, tuple(shape)) for name, dtype, shape in tensors]
        model = self.model_runner.get_model()
        with set_current_vllm_config(self.vllm_config), opened(source) as staged:
            initialize_layerwise_reload(model)
            model.load_weights(unflatten(staged, metas))
            finalize_layerwise_reload(model, self.vllm_config.model_config)
            if torch.cuda.is_available():
                torch.cuda.synchronize()  # the buffer may change when this returns
        if self.vllm_config.model_config.hf_text_config.tie_word_embeddings:
            _repack(model)
        return time.perf_counter() - begin

    def weights_digest(self) -> str:
        """blake2b of all weights of this worker, in hexadecimal."""
        digest = hashlib.blake2b(digest_size=16)
        for name, weight in sorted(_weights(self.model_runner.get_model())):
            digest.update(name.encode())
            digest.update(weight.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()


def joined(digests: Sequence[str]) -> str:
    """One digest for all workers of an engine, in the order of their ranks."""
    return "-".join(digests)


def _weights(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Every weight by name. What a prepacked layer holds is opaque; it is read by what it makes of unit vectors."""
    yield from ((name, parameter) for name, parameter in model.named_parameters() if parameter.numel())
    for name, layer in model.named_modules():
        linear: Any = getattr(layer, "cpu_linear", None)
        if linear is not None:
            width = layer.input_size if hasattr(layer, "input_size") else layer.embedding_dim
            units = torch.eye(width, dtype=next(p.dtype for p in model.parameters()))
            yield f"{name}.prepacked", linear(units, layer.weight, None)


def _repack(model: torch.nn.Module) -> None:
    head: Any = getattr(model, "lm_head", None)
    if hasattr(head, "cpu_linear"):
        head.quant_method.process_weights_after_loading(head)
