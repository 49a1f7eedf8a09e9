"""What a run that is meant for GPUs asks of them, told to people and held against the GPUs there are.

azr/gpu_placement.py says who is on which GPU: a GPU that a trainer rank and an engine share must hold both. `otherwise`
is the learner's need with the other choice of learner.checkpoint_activations.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from azr.architecture import Architecture
from azr.gpu_placement import Bundle, GpuPlan, planned
from azr.memory import GIB, WIDTHS, Need, cached, engine, learner, sequences, snapshots, staged
from azr.part import role_of
from common.config import Config


@dataclass(frozen=True, slots=True)
class GpuNeeds:
    """`learner` and `engine`: of each of their GPUs."""

    config: Config
    model: Architecture
    plan: GpuPlan
    learner: Need
    otherwise: Need
    engine: Need

    @property
    def count(self) -> int:
        return self.plan.gpus

    def each(self, bundle: Bundle) -> int:
        """Bytes on each GPU of `bundle`."""
        return sum((self.learner if role_of(part) == "trainer" else self.engine).total for part in bundle.parts)


def needs(config: Config, model: Architecture) -> GpuNeeds:
    """Of a configuration whose model.dtype is in azr.memory.WIDTHS."""
    settings = replace(config.learner, checkpoint_activations=not config.learner.checkpoint_activations)
    other = replace(config, learner=settings)
    figures = learner(config, model), learner(other, model), engine(config, model)
    return GpuNeeds(config, model, planned(config), *figures)


def asked(needs: GpuNeeds) -> str:
    """All of it in one clause."""
    shared = any(len(bundle.parts) > 1 for bundle in needs.plan.learner)
    kinds = (
        (needs.plan.learner, "a rank and an engine each" if shared else "trainer ranks"),
        (needs.plan.engines, "engines"),
    )
    return " and ".join(
        f"{sum(bundle.gpus for bundle in bundles)} with {needs.each(bundles[0]) / GIB:.1f} GiB for {what}"
        for bundles, what in kinds
        if bundles
    )


def lacking(needs: GpuNeeds, free: tuple[int, ...]) -> str:
    """Why GPUs of one machine with so many free bytes are not enough; empty if they are."""
    wanted = sorted((needs.each(bundle) for bundle in needs.plan.bundles for _ in range(bundle.gpus)), reverse=True)
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
    per_token = cached(shape, width, limits.tensor_parallel)
    full = per_token * limits.max_model_len
    made = f", of {shape.positions:,} that the model was made for" if shape.positions else ""
    flag = str(not config.learner.checkpoint_activations).lower()
    otherwise = f"{needs.otherwise.total / GIB:.1f} with learner.checkpoint_activations={flag}"
    trains = needs.learner.count > 0
    title = f"trainer rank, each of {needs.learner.count}, ZeRO-{config.learner.zero_stage}"
    copies = snapshots(shape.parameters, width, config.carrier)
    push = (
        f"a push in host memory: {copies / GIB:.1f} GiB at rank 0 ({copies // weights} copies), "
        f"{staged(shape.parameters, width, config.carrier) / GIB:.1f} GiB at each actor"
    )
    return [
        f"GPUs: {needs.count}, cluster.placement={config.cluster.placement}; model.dtype={config.model.dtype}",
        *(_table(needs.learner, title, otherwise) if trains else ()),
        *_table(needs.engine, f"engine, each of {needs.engine.count} GPUs", ""),
        f"{'GPUs':<34}{'GiB':>8}",
        *(_row(needs, bundle) for bundle in needs.plan.bundles),
        f"KV cache: {per_token:,} B a token, {full / GIB:.2f} GiB a sequence of {limits.max_model_len:,} "
        f"tokens, {sequences(config, shape, width)} such sequences",
        f"sequences: prompts of {limits.max_model_len - limits.max_tokens:,} + answers of {limits.max_tokens:,} = "
        f"{limits.max_model_len:,} tokens{made}",
        *([push] if trains else ()),
    ]


def _row(needs: GpuNeeds, bundle: Bundle) -> str:
    who = " + ".join(bundle.parts) + (f", on each of {bundle.gpus}" if bundle.gpus > 1 else "")
    return f"  {who:<32}{needs.each(bundle) / GIB:>8.2f}"


def _table(need: Need, title: str, remark: str) -> list[str]:
    rows = [f"{title:<34}{'GiB':>8}"]
    rows += [f"  {term.name:<32}{term.bytes / GIB:>8.2f}  {term.formula}" for term in need.terms]
    return [*rows, f"  {'together':<32}{need.total / GIB:>8.2f}" + (f"  ({remark})" if remark else "")]
