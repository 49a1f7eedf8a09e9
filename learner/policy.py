"""The trained policy: a Hugging Face causal language model, the log-probs it gives to tokens, and its entropy there.

Sequences go through the model as rows [S, L], padded on the right and without an attention mask. That is
exact: attention is causal, so a real token sees only itself and what stands left of it, and padding stands
right of every real token; the outputs of padding positions are never selected. The vocabulary head runs on
the selected positions alone and the softmax is taken in float32. To spare memory the head takes the positions in parts,
whose logits are not kept but computed again for the backward pass (Chen et al., arXiv 1604.06174), and layers likewise.
With `SharedRows` a row holds one prompt and several answers to it, and a mask says what each sees. With `PackedRow`
there is one row, of sequences end to end, and attention keeps to their bounds (learner/attention.py).
Invariants: log-probs are those of sampling at temperature 1 from the whole vocabulary; every forward call runs the head
equally often, whatever the number of positions, since under ZeRO-3 each run is a collective of all ranks.
Not covered: models whose head needs more than the hidden state (refused on load); dropout is
expected to be 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils import logging as transformers_logging

from common.errors import PartFailed
from common.types import Float32Array, Int32Array, MicroBatch
from learner.attention import PACKED, apart, bounds_of
from learner.compilation import compile_layers, fused_scores
from learner.float32_head import compute_head_in_float32
from learner.packing import PackedRow, packed_row
from learner.pinned import onto
from learner.prompt_rows import SharedRows, shared_rows

# Probabilities held at a time, 64 MiB: entropy needs no second [N, V] beside the log-probs. With V = 150,000
# these are a hundred tokens; with fewer a GPU would wait for the host to queue the next.
ENTROPY_ELEMENTS = 1 << 24
HEAD_SLACK = 1e-3  # nats between two ways to compute the same log-prob


class TokenScores(NamedTuple):
    """What the policy makes of N tokens, float32 [N] each, in nats."""

    logprobs: Tensor  # of the tokens, differentiable
    entropy: Tensor  # of the distribution that each was drawn from; detached unless the policy says otherwise


# The fields of Rows, SharedRows or PackedRow by name → scores [N]: a Policy, or what wraps one for training.
Scorer = Callable[..., TokenScores]


class Policy(torch.nn.Module):
    """Wraps `model`: one forward call yields scores of chosen tokens, never logits of all positions.

    `entropy_gradient`: entropy is differentiable, too, which keeps a second [N, V] for the backward pass.
    `head_parts`: into so many the N tokens are divided, and no [N, V] is kept if there are several.
    `fused`: scores are compiled (learner/compilation.py).
    """

    def __init__(
        self, model: PreTrainedModel, *, entropy_gradient: bool = False, head_parts: int = 1, fused: bool = False
    ) -> None:
        super().__init__()
        self.model = model
        self.entropy_gradient = entropy_gradient
        self.head_parts = head_parts
        self.fused = fused

    def forward(
        self,
        input_ids: Tensor,
        positions: Tensor,
        targets: Tensor,
        position_ids: Tensor | None = None,
        visible: Tensor | None = None,
        bounds: Tensor | None = None,
        longest: int = 0,
    ) -> TokenScores:
        """Scores of `targets` [N], predicted at flat indices `positions` into rows [S, L].

        `position_ids` [S, L] and `visible` [S, 1, L, L]: other than those of causal rows (SharedRows). `bounds` and
        `longest`: of the sequences in a single row (PackedRow), which a model with packed attention must be told.
        """
        mask = None
        if visible is not None:
            hidden_from = torch.finfo(self.model.dtype).min
            mask = torch.zeros(visible.shape, dtype=self.model.dtype, device=visible.device)
            mask = mask.masked_fill(~visible, hidden_from)
        hidden = self.model.base_model(
            input_ids=input_ids,
            position_ids=position_ids,
            attention_mask=mask,
            use_cache=False,
            **(bounds_of(bounds, longest) if bounds is not None else {}),
        ).last_hidden_state
        chosen = hidden.flatten(0, 1).index_select(0, positions)
        if self.head_parts == 1:
            return self._scores(chosen, targets)
        parts = [
            checkpoint(self._scores, *part, use_reentrant=False, preserve_rng_state=False)
            for part in zip(chosen.tensor_split(self.head_parts), targets.tensor_split(self.head_parts), strict=True)
        ]
        return TokenScores(torch.cat([p.logprobs for p in parts]), torch.cat([p.entropy for p in parts]))

    def _scores(self, chosen: Tensor, targets: Tensor) -> TokenScores:
        """Of `targets` [n] after the hidden states `chosen` [n, h]."""
        logits: Tensor = self.model.get_output_embeddings()(chosen)
        if self.fused and len(targets) > 1:  # a part of one or none would be a graph of its own
            return TokenScores(*fused_scores(logits, targets, self.entropy_gradient))
        logprobs = logits.float().log_softmax(-1)
        spread = entropy(logprobs if self.entropy_gradient else logprobs.detach())
        return TokenScores(logprobs.gather(1, targets[:, None]).squeeze(1), spread)


def entropy(logprobs: Tensor) -> Tensor:
    """-Σ p log p of each row of `logprobs` [N, V], as [N]; reads the log-softmax that the loss holds anyway."""
    rows = max(1, ENTROPY_ELEMENTS // logprobs.shape[1])
    return -torch.cat([torch.linalg.vecdot(part.exp(), part) for part in torch.split(logprobs, rows)])


def load_policy(
    folder: Path,
    dtype: torch.dtype = torch.float32,
    *,
    entropy_gradient: bool = False,
    head_parts: int = 1,
    head_float32: bool = False,
    checkpoint_activations: bool = False,
    share_prompts: bool = False,
    packing: bool = False,
    compiled: bool = False,
) -> Policy:
    """Read a Hugging Face model folder. Raises PartFailed if no usable causal language model is in it, or, with
    `share_prompts`, one to which a mask and positions do not say all that a token sees, or, with `packing`, bounds.

    `checkpoint_activations`: of a layer only the input is kept for the backward pass. `packing`: the policy takes a
    PackedRow and no other rows.
    """
    if not (folder / "config.json").is_file():
        raise PartFailed("learner", f"no config.json in {folder}", hint="set model.path or model.build")
    transformers_logging.disable_progress_bar()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="sdpa", local_files_only=True)
    if head_float32:
        compute_head_in_float32(model)
    family = type(model).__name__
    why = apart(model.config)
    if share_prompts and why:
        raise PartFailed(
            "learner",
            f"{folder}: {family} cannot train several answers in one row ({', '.join(why)})",
            hint="learner.share_prompts=false",
        )
    if packing and not model._supports_attention_backend:
        why.append("attention of its own")
    if packing:
        if why:
            raise PartFailed(
                "learner",
                f"{folder}: {family} cannot train several sequences in one row ({', '.join(why)})",
                hint="learner.packing=false",
            )
        model.set_attn_implementation(PACKED)
    require_bare_head(Policy(model), folder, packing=packing)
    if checkpoint_activations:
        model.gradient_checkpointing_enable({"use_reentrant": False, "preserve_rng_state": False})
        model.train()  # transformers checkpoints nothing otherwise
    if compiled and not compile_layers(model):
        raise PartFailed("learner", f"{folder}: {family} has no layers to compile", hint="learner.compile=false")
    return Policy(model, entropy_gradient=entropy_gradient, head_parts=head_parts, fused=compiled)


def answer_scores(
    scorer: Scorer, batch: MicroBatch, device: torch.device | None = None, *, packing: bool = False
) -> TokenScores:
    """Scores of all answer tokens [Σ answer], in the order of `batch.logprobs`.

    ValueError if the batch has no answer token, or a sequence has no prompt token.
    """
    return scored(scorer, rows_of(batch, packing=packing), device)


def rows_of(batch: MicroBatch, *, packing: bool = False) -> Rows | SharedRows | PackedRow:
    """Rows need a mask only where one holds several sequences and attention is not told their bounds."""
    sequences = batch.tokens, batch.prompt_lengths, batch.answer_lengths
    if packing:
        return packed_row(*sequences)
    shared = len(batch.rows) < len(batch.answer_lengths)
    return shared_rows(*sequences, batch.rows) if shared else pad(*sequences)


def scored(scorer: Scorer, rows: Rows | SharedRows | PackedRow, device: torch.device | None) -> TokenScores:
    """Scores of the targets of `rows`, which are copied to `device`."""
    return scorer(**{n: v if isinstance(v, int) else onto(v, device) for n, v in rows._asdict().items()})


def score(
    scorer: Scorer,
    sequences: Sequence[Int32Array],
    *,
    tokens: int,
    device: torch.device | None = None,
    packing: bool = False,
) -> list[Float32Array]:
    """Log-probs of tokens 1… of each sequence, float32 [len − 1]; at most `tokens` a time, padded or packed ones."""
    found: list[Float32Array] = [np.zeros(max(len(s) - 1, 0), np.float32) for s in sequences]
    waiting = [i for i, s in enumerate(sequences) if len(s) > 1]
    lay_out = packed_row if packing else pad
    with torch.no_grad():
        while waiting:
            width = total = len(sequences[waiting[0]])
            count = 1
            for i in waiting[1:]:
                width, total = max(width, len(sequences[i])), total + len(sequences[i])
                if (total if packing else width * (count + 1)) > tokens:
                    break
                count += 1
            chosen, waiting = waiting[:count], waiting[count:]
            lengths = np.array([len(sequences[i]) for i in chosen], np.int32)
            rows = lay_out(np.concatenate([sequences[i] for i in chosen]), np.ones_like(lengths), lengths - 1)
            flat = scored(scorer, rows, device).logprobs.float().cpu().numpy()
            for i, part in zip(chosen, np.split(flat, np.cumsum(lengths - 1)[:-1]), strict=True):
                found[i] = part.copy()
    return found


class Rows(NamedTuple):
    input_ids: np.ndarray[tuple[int, int], np.dtype[np.int64]]  # [S, L], zeros right of each sequence
    positions: np.ndarray[tuple[int], np.dtype[np.int64]]  # [N], flat index that predicts answer token n
    targets: np.ndarray[tuple[int], np.dtype[np.int64]]  # [N], the answer tokens


def pad(tokens: Int32Array, prompt_lengths: Int32Array, answer_lengths: Int32Array) -> Rows:
    """Lay concatenated prompt + answer sequences out as rows. The last token of each is only a target."""
    if len(prompt_lengths) == 0 or prompt_lengths.min() < 1 or answer_lengths.sum() < 1:
        raise ValueError("a micro-batch needs a prompt token in every sequence and at least one answer token")
    lengths = (prompt_lengths + answer_lengths).astype(np.int64)
    if lengths.sum() != len(tokens):
        raise ValueError(f"lengths add up to {lengths.sum()} tokens, but there are {len(tokens)}")
    width = int(lengths.max())
    row = np.repeat(np.arange(len(lengths)), lengths)
    column = np.arange(len(tokens)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    answer = column >= np.repeat(prompt_lengths, lengths)
    grid = np.zeros((len(lengths), width), np.int64)
    grid[row, column] = tokens
    positions = row[answer] * (width - 1) + column[answer] - 1
    return Rows(np.ascontiguousarray(grid[:, :-1]), positions, tokens[answer].astype(np.int64))


def require_bare_head(policy: Policy, folder: Path, *, packing: bool) -> None:
    """Some families scale or cap logits after the head; the bare head would be silently wrong for them.

    Both heads run on all positions, the same product of the same shape: other shapes may be rounded otherwise, which in
    bfloat16 is as much as a slight cap. PartFailed naming the model of `folder`.
    """
    ids = torch.arange(4).reshape(1, 4)
    family = type(policy.model).__name__
    bounds = torch.tensor([0, 4], dtype=torch.int32) if packing else None
    told = bounds_of(bounds, 4) if bounds is not None else {}
    with torch.no_grad():
        try:
            ours = policy(ids, ids[0], ids[0], bounds=bounds, longest=4).logprobs
            logits = policy.model(input_ids=ids, use_cache=False, **told).logits
        except NotImplementedError as error:
            raise PartFailed(
                "learner", f"{folder}: {family} cannot be packed: {error}", hint="learner.packing=false"
            ) from error
    whole = logits[0].float().log_softmax(-1)
    if not torch.allclose(ours, whole.gather(1, ids.T).squeeze(1), rtol=0.0, atol=HEAD_SLACK):
        raise PartFailed("learner", f"{folder}: the logits of {family} are more than its output embedding")
