"""What a run that is meant for GPUs asks of them, told to people and held against the GPUs there are.

Every trainer rank and every engine has a GPU to itself. `otherwise` is the learner's need with the other choice of
learner.checkpoint_activations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from azr.architecture import Architecture
from azr.memory import GIB, WIDTHS, Need, engine, learner, sequences, snapshots, staged
from common.config import Config


@dataclass(frozen=True, slots=True)
class GpuNeeds:
    config: Config
    model: Architecture
    learner: Need
    otherwise: Need
    engine: Need

    @property
    def count(self) -> int:
        return self.learner.count + self.engine.count


def needs(config: Config, model: Architecture) -> GpuNeeds:
    """Of a configuration whose model.dtype is in azr.memory.WIDTHS."""
    settings = replace(config.learner, checkpoint_activations=not config.learner.checkpoint_activations)
    other = replace(config, learner=settings)
    return GpuNeeds(config, model, learner(config, model), learner(other, model), engine(config, model))


def asked(needs: GpuNeeds) -> str:
    """All of it in one clause."""
    return " and ".join(
        f"{need.count} with {need.total / GIB:.1f} GiB for {what}"
        for need, what in ((needs.learner, "trainer ranks"), (needs.engine, "engines"))
        if need.count
    )


def lacking(needs: GpuNeeds, free: tuple[int, ...]) -> str:
    """Why GPUs with so many free bytes are not enough; empty if they are."""
    wanted = sorted(
        (need.total for need in (needs.learner, needs.engine) for _ in range(need.count)),
        reverse=True,
    )
    if not free:
        return f"this machine has no GPU, and the run needs {needs.count}: {asked(needs)}"
    if len(free) < len(wanted):
        return f"this machine has {len(free)} GPUs, and the run needs {len(wanted)}: {asked(needs)}"
    if any(want > have for want, have in zip(wanted, sorted(free, reverse=True), strict=False)):
        found = ", ".join(f"{have / GIB:.1f}" for have in sorted(free, reverse=True))
        return f"this machine's GPUs have {found} GiB free, and the run needs {asked(needs)}"
    return ""


def lines(needs: GpuNeeds) -> list[str]:
    """A table of terms with their formulas, the sequences that fit, and what a push takes in host memory."""
    config, model = needs.config, needs.model
    width = WIDTHS[config.model.dtype]
    limits, shape = config.engine, model.shape
    weights = width * shape.parameters
    full = shape.kv_bytes(width) * limits.max_model_len
    made = f", of {shape.positions:,} that the model was made for" if shape.positions else ""
    flag = str(not config.learner.checkpoint_activations).lower()
    otherwise = f"{needs.otherwise.total / GIB:.1f} with learner.checkpoint_activations={flag}"
    trains = needs.learner.count > 0
    each = "each trainer rank and each engine" if trains else "each engine"
    title = f"trainer rank, each of {needs.learner.count}, ZeRO-{config.learner.zero_stage}"
    copies = snapshots(shape.parameters, width, config.carrier)
    push = (
        f"a push in host memory: {copies / GIB:.1f} GiB at rank 0 ({copies // weights} copies), "
        f"{staged(shape.parameters, width, config.carrier) / GIB:.1f} GiB at each actor"
    )
    return [
        f"GPUs: {needs.count}, one for {each}; model.dtype={config.model.dtype}",
        *(_table(needs.learner, title, otherwise) if trains else ()),
        *_table(needs.engine, f"engine, each of {needs.engine.count}", ""),
        f"KV cache: {shape.kv_bytes(width):,} B a token, {full / GIB:.2f} GiB a sequence of {limits.max_model_len:,} "
        f"tokens, {sequences(config, shape, width)} such sequences",
        f"sequences: prompts of {limits.max_model_len - limits.max_tokens:,} + answers of {limits.max_tokens:,} = "
        f"{limits.max_model_len:,} tokens{made}",
        *([push] if trains else ()),
    ]


def _table(need: Need, title: str, remark: str) -> list[str]:
    rows = [f"{title:<34}{'GiB':>8}"]
    rows += [f"  {term.name:<32}{term.bytes / GIB:>8.2f}  {term.formula}" for term in need.terms]
    return [*rows, f"  {'together':<32}{need.total / GIB:>8.2f}" + (f"  ({remark})" if remark else "")]
