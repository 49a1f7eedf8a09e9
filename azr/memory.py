"""How many bytes a configuration needs on each GPU, and in host memory for weight pushes. Arithmetic alone.

P is the number of parameters, w the bytes of a number of model.dtype, N the trainer ranks, n the tokens of a
micro-batch, h the hidden size, I the feed-forward width, H and K the heads of queries and of keys, d their size.

* States: mixed-precision AdamW as in ZeRO (Rajbhandari et al., arXiv 1910.02054, section 3.1), but with gradients added
  up in float32: weights w, gradients 4, a float32 master copy 4 and two float32 moments 8 bytes per parameter; without
  ZeRO float32 weights are their own master. Stages 1 and 2 divide master and moments by N and, other than in the paper,
  keep whole gradients: a step reduces them once, at its end (learner/zero.py). Stage 3 divides everything and has at
  most LIVE parameters gathered. With learner.offload_optimizer master and moments are in host memory, and with them the
  rank's gradients; at stages 1 and 2 those of a backward pass in w bytes are then there beside their float32 sum.
* Float32 head: a float32 copy of the head's weights and the gradient of the copy, 8Vh, for vocabulary V.
* Activations of a layer of RMSNorm, grouped-query attention and SwiGLU, per token (the count of Korthikanti et al.,
  arXiv 2205.05198, section 4.1, redone for this layer as transformers computes it, with attention that stores no
  scores): 8h + 4 for the norms' float32 input and scale, each twice; w(4h + 2(H + K)d + 4I) for what goes into the
  projections, queries, keys, values, attention output and MLP; 4H for the softmax's normaliser. With checkpointing
  (Chen et al., arXiv 1604.06174) the input of every layer, wh, and all of one layer.
* Logits: learner/policy.py takes the softmax in float32 at the answer tokens, at most all n, or learner.head_tokens of
  them at a time. Log-probs, their gradient and that of the logits are there at once: 12 bytes per token and entry of
  the vocabulary; with learner.entropy_bonus the probabilities as well, 4. With learner.compile only the logits as the
  head gave them and their gradient, 2w, whatever the bonus (learner/compilation.py).
* Mask, with learner.share_prompts: one byte and one number for every pair of positions of a row; most if a micro-batch
  is one row (learner/prompt_rows.py).
* learner.kl: each rank holds the first weights whole, in model.dtype.
* KV cache: 2wKd bytes per token and layer (Kwon et al., arXiv 2309.06180, section 3, with K heads for H). Tensor
  parallelism divides an engine's weights and KV cache over its GPUs.

Allowances, not computed: GPU_RESERVE and ENGINE_RESERVE. Not covered: quantisation, what tensor
parallelism does not divide (norms) and its buffers.
"""

from __future__ import annotations

from dataclasses import dataclass

from azr.architecture import Architecture
from azr.model_folder import Shape
from common.config import Config

GIB = 1 << 30
WIDTHS = {"float32": 4, "bfloat16": 2}  # bytes of a number
MASTER = 4
GRADIENT = 4
MOMENTS = 8
LIVE = 1_000_000_000  # parameters gathered at once in stage 3: DeepSpeed's default of stage3_max_live_parameters
SOFTMAX = 12
PROBABILITIES = 4
GPU_RESERVE = 2 * GIB  # CUDA's context, buckets and other buffers of communication, fragmentation
ENGINE_RESERVE = 4 * GIB  # the same, CUDA graphs, activations of a prefill, logits of the sampler
VERSIONS = 3  # that the publisher keeps (learner/snapshots.py, KEPT)


@dataclass(frozen=True, slots=True)
class Term:
    name: str
    bytes: int
    formula: str  # with this configuration's numbers


@dataclass(frozen=True, slots=True)
class Need:
    """What each of `count` equal GPUs holds: `standing` always, and of the two phases of a step one at a time."""

    name: str
    count: int
    standing: tuple[Term, ...]
    backward: tuple[Term, ...] = ()
    update: tuple[Term, ...] = ()

    @property
    def terms(self) -> tuple[Term, ...]:
        """Those that make up the peak."""
        return self.standing + max(self.backward, self.update, key=_sum)

    @property
    def total(self) -> int:
        return _sum(self.terms)


def learner(config: Config, model: Architecture) -> Need:
    """One trainer rank. Its longest micro-batch is one sequence, or learner.micro_batch_tokens if that is more."""
    settings, shape, width = config.learner, model.shape, WIDTHS[config.model.dtype]
    stage, ranks, offload = settings.zero_stage, settings.ranks, settings.offload_optimizer
    tokens, checkpointing = config.longest_micro_batch, settings.checkpoint_activations
    at_once = min(tokens, settings.head_tokens or tokens)
    each = softmax(width, compiled=settings.compile, head_float32=settings.head_float32)
    how = "one recomputed at a time" if checkpointing else "all kept"
    return Need(
        "learner",
        settings.trainers,
        (
            *states(shape.parameters, stage, ranks, width, offload=offload),
            *reference(shape.parameters, width, settings.kl),
            *([_largest(shape, width)] if offload and stage < 3 else ()),
            *sent(config, shape.parameters, width),
            Term("reserve", GPU_RESERVE, "an allowance"),
        ),
        (
            Term(
                "activations",
                activations(model, tokens, width, checkpointing=checkpointing),
                f"{tokens:,} tokens, {shape.layers} layers of {layer_bytes(model, width):,} B a token, {how}",
            ),
            Term("logits", logits(shape, at_once, each), f"{each} B x {at_once:,} tokens x {shape.vocabulary:,}"),
            *(entropy(shape, at_once, settings.entropy_bonus) if not settings.compile else ()),
            *mask(settings.micro_batch_tokens, width, shared=settings.share_prompts),
            *float32_head(shape, width, computed=settings.head_float32),
        ),
        (Term("update", *update(shape.parameters, stage, ranks, width, offload=offload)),),
    )


def engine(config: Config, model: Architecture) -> Need:
    """Each GPU of an actor's engine, which divides weights and KV cache over engine.tensor_parallel of them."""
    settings, shape, width = config.engine, model.shape, WIDTHS[config.model.dtype]
    over = settings.tensor_parallel
    divided = f" / {over} GPUs" if over > 1 else ""
    cache = int(settings.kv_cache_gib * GIB)
    return Need(
        "engine",
        settings.actors * over,
        (
            Term("weights", -(-width * shape.parameters // over), f"{width} B x {shape.parameters:,}{divided}"),
            Term("KV cache", -(-cache // over), f"engine.kv_cache_gib={settings.kv_cache_gib:g}{divided}"),
            *received(config, shape.parameters, width),
            Term("reserve", ENGINE_RESERVE, "an allowance, CUDA graphs and prefill included"),
        ),
    )


def states(parameters: int, stage: int, ranks: int, width: int, *, offload: bool = False) -> tuple[Term, ...]:
    """What a rank holds of the model between and during steps, at ZeRO `stage` over `ranks`; less what is offloaded."""
    low = width != MASTER
    whole = ranks if stage == 3 else 1
    part = ranks if stage > 0 else 1
    gradients = 0 if offload and stage == 3 else GRADIENT + width * (low and offload)
    sizes = [("weights", width, whole), ("gradients", gradients, whole)]
    if not offload:
        sizes += [("master", MASTER if low or stage else 0, part), ("AdamW", MOMENTS, part)]
    terms = [_per_parameter(name, size, parameters, over) for name, size, over in sizes if size]
    if stage == 3:
        live = min(parameters, LIVE)
        terms.append(Term("gathered", width * live, f"{width} B x {live:,}, alive at once"))
    return tuple(terms)


def offloaded(parameters: int, stage: int, ranks: int, width: int) -> tuple[Term, ...]:
    """Host memory of a rank with learner.offload_optimizer: what `states` lacks then, and what AdamW needs with it."""
    sizes = [("master", MASTER), ("AdamW", MOMENTS), ("gradients of a rank", GRADIENT)]
    sizes += [("sums of gradients", GRADIENT)] if stage == 3 else [("weights on their way", width)]
    return tuple(_per_parameter(name, size, parameters, ranks) for name, size in sizes)


def update(parameters: int, stage: int, ranks: int, width: int, *, offload: bool = False) -> tuple[int, str]:
    """(bytes, formula) of what an optimiser step adds: the rank's gradients as one tensor where they are not so yet."""
    low = width != MASTER
    in_place = stage == 0 or (stage < 3 and low != offload) or (stage == 3 and offload)
    if in_place:
        return 0, "in place"
    return -(
        -GRADIENT * parameters // ranks
    ), f"{GRADIENT} B x {parameters:,} / {ranks} ranks, gradients of a rank as one"


def _largest(shape: Shape, width: int) -> Term:
    """The buffer through which DeepSpeed takes gradients to the host at stages 1 and 2."""
    return Term("largest gradient", width * shape.vocabulary * shape.hidden, f"{width} B x the embedding")


def _per_parameter(name: str, size: int, parameters: int, over: int) -> Term:
    """`size` bytes for each of `parameters`, divided by `over` ranks."""
    formula = f"{size} B x {parameters:,}" + (f" / {over} ranks" if over > 1 else "")
    return Term(name, -(-size * parameters // over), formula)


def layer_bytes(model: Architecture, width: int) -> int:
    """Bytes per token that a layer keeps for its backward pass."""
    shape = model.shape
    projected = 4 * shape.hidden + 2 * (shape.heads + shape.kv_heads) * shape.head_dim + 4 * model.feed_forward
    return 2 * (4 * shape.hidden + 4) + width * projected + 4 * shape.heads


def activations(model: Architecture, tokens: int, width: int, *, checkpointing: bool) -> int:
    """Bytes kept for the backward pass of a micro-batch of `tokens`, the last norm and the head's input included."""
    hidden, layers = model.shape.hidden, model.shape.layers
    head = 4 * hidden + 4 + 2 * width * hidden
    inside = layer_bytes(model, width)
    return tokens * (head + (layers * width * hidden + inside if checkpointing else layers * inside))


def softmax(width: int, *, compiled: bool, head_float32: bool) -> int:
    """Peak bytes per token and entry of the vocabulary."""
    return 2 * (MASTER if head_float32 else width) if compiled else SOFTMAX


def logits(shape: Shape, tokens: int, each: int = SOFTMAX) -> int:
    """Peak bytes of the softmax over the vocabulary at `tokens` answer tokens and of its gradient, `each` per entry."""
    return each * tokens * shape.vocabulary


def entropy(shape: Shape, tokens: int, bonus: float) -> tuple[Term, ...]:
    """What the gradient of the entropy keeps besides; nothing without an entropy bonus."""
    size = PROBABILITIES * tokens * shape.vocabulary
    formula = f"{PROBABILITIES} B x {tokens:,} tokens x {shape.vocabulary:,}"
    return (Term("entropy", size, formula),) if bonus else ()


def mask(tokens: int, width: int, *, shared: bool) -> tuple[Term, ...]:
    """What says which of `tokens` positions see each other, as bool and as numbers; nothing without shared prompts."""
    return (Term("mask", (1 + width) * tokens**2, f"{1 + width} B x {tokens:,} x {tokens:,} tokens"),) if shared else ()


def float32_head(shape: Shape, width: int, *, computed: bool) -> tuple[Term, ...]:
    """Of learner.head_float32: the head's weights in float32 and their gradient; nothing where they are float32."""
    size = (MASTER + GRADIENT) * shape.vocabulary * shape.hidden
    formula = f"{MASTER + GRADIENT} B x {shape.vocabulary:,} x {shape.hidden:,}"
    return (Term("float32 head", size, formula),) if computed and width != MASTER else ()


def reference(parameters: int, width: int, kl: float) -> tuple[Term, ...]:
    """The first weights, for the KL divergence to them; nothing without."""
    return (Term("reference", width * parameters, f"{width} B x {parameters:,}"),) if kl else ()


def kv_tokens(config: Config, shape: Shape, width: int) -> int:
    """How many tokens the KV cache of an engine holds."""
    return int(config.engine.kv_cache_gib * GIB) // cached(shape, width, config.engine.tensor_parallel)


def sequences(config: Config, shape: Shape, width: int) -> int:
    """How many sequences of engine.max_model_len the KV cache of an engine holds."""
    return kv_tokens(config, shape, width) // config.engine.max_model_len


def cached(shape: Shape, width: int, over: int) -> int:
    """Bytes of KV cache per token on all `over` GPUs of an engine: each has a head of keys at least, if need be a copy.

    vLLM's own rule (ModelConfig.get_num_kv_heads).
    """
    return shape.kv_bytes(width) * max(1, over // shape.kv_heads)


def sent(config: Config, parameters: int, width: int) -> tuple[Term, ...]:
    """What pushes take of the GPU of trainer rank 0; nothing with weights.transport=gloo (learner/snapshots.py)."""
    if config.carrier == "gloo" or not config.learner.trainers:
        return ()
    versions = Term("versions", 2 * width * parameters, f"2 x {width} B x {parameters:,}, for pushes; rank 0 alone")
    return versions, *delta(config, parameters, 2 * width)


def received(config: Config, parameters: int, width: int) -> tuple[Term, ...]:
    """What pushes take of an engine's first GPU: only NCCL has a buffer there."""
    if config.carrier != "nccl" or not config.learner.trainers:
        return ()
    return Term("staged", width * parameters, f"{width} B x {parameters:,}"), *delta(config, parameters, width)


def delta(config: Config, parameters: int, width: int) -> tuple[Term, ...]:
    """At worst, with almost as many bytes as the whole (common/delta.py); as a rule a few percent of it."""
    size = width * parameters
    return (Term("delta", size, f"{width} B x {parameters:,} at worst"),) if config.weights.delta else ()


def snapshots(parameters: int, width: int, carrier: str = "gloo") -> int:
    """Host memory of trainer rank 0 for pushes: the versions kept, and with gloo the new one beside them."""
    return (VERSIONS + (carrier == "gloo")) * width * parameters


def staged(parameters: int, width: int, carrier: str = "gloo") -> int:
    """Host memory of an actor that receives a version while decoding goes on."""
    return width * parameters if carrier == "gloo" else 0


def _sum(terms: tuple[Term, ...]) -> int:
    return sum(term.bytes for term in terms)
