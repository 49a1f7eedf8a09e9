"""`azr replay RUN`: train a run's batches again on the CPU and hold every figure against metrics.jsonl, bit by bit.

With settings that differ it is a counterfactual: what the batches that the run's weights sampled would have given, for
instance under another loss. The run's own losses are then shown beside, and nothing is judged.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from azr.lock import held
from azr.replay_plan import Figures, Plan, plan
from azr.replay_ranks import trained
from common.errors import ConfigError

TIMED = "seconds_"  # figures that no two runs share
NAMED = 3  # figures that differ, at most so many by name
CAUSES = (
    "another CPU or other versions of torch and DeepSpeed, learner.threads over 1, a base model made anew under the "
    "same path, or settings that a resume changed (config.yaml has those of the last one)"
)


def replay(folder: Path, overrides: list[str]) -> bool:
    """Print a line per step; whether nothing differs, or nothing was to be equal. ConfigError if it cannot be done.

    The run folder stays as it is, and nobody else may work in it meanwhile.
    """
    if not (folder / "journal").exists() or not (folder / "tasks.sqlite").exists():
        raise ConfigError(f"{folder} has no journal or no tasks.sqlite: there is nothing to replay")
    with held(folder), tempfile.TemporaryDirectory(prefix="azr-replay-") as work:
        found = plan(folder, overrides)
        print(header(found), flush=True)
        first: int | None = None
        for step, figures in trained(found, Path(work)):
            recorded = found.recorded[step]
            wrong = differing(recorded, figures)
            print(line(step, recorded, figures, wrong), flush=True)
            if wrong and first is None:
                first = step
    print(verdict(found, first))
    return first is None or bool(found.changes)


def differing(recorded: Figures, figures: Figures) -> list[str]:
    """Names whose values are not the same float64, the loss and the gradient norm first. NaN equals NaN.

    Times are left out, and so is what the run did not record.
    """
    names = [name for name in figures if name in recorded and not name.startswith(TIMED)]
    names.sort(key=lambda name: (name != "loss", name != "grad_norm", name))
    return [name for name in names if repr(float(figures[name])) != repr(float(recorded[name]))]


def header(plan: Plan) -> str:
    begin = plan.start.name if plan.start else "the base model"
    last, ranks = max(plan.recorded), plan.config.learner.ranks
    lines = [
        f"run {plan.folder}",
        f"steps {plan.steps[0]} to {plan.steps[-1]} of 0 to {last}, from {begin}, on {ranks} "
        f"trainer {'rank' if ranks == 1 else 'ranks'}",
    ]
    if len(plan.steps) <= last:
        lines.append("the journal does not have the other batches; logging.keep_journal=true keeps all")
    if plan.changes:
        lines.append(f"counterfactual: {', '.join(plan.changes)}")
    return "\n".join([*lines, "", f"{'step':>6}{'loss':>24}{'run':>24}{'grad norm':>14}{'run':>14}  figures"])


def line(step: int, recorded: Figures, figures: Figures, wrong: list[str]) -> str:
    more = ", ..." if len(wrong) > NAMED else ""
    told = f"{len(wrong)} differ: {', '.join(wrong[:NAMED])}{more}" if wrong else "equal"
    losses = f"{figures['loss']:>24.16g}{recorded['loss']:>24.16g}"
    return f"{step:>6}{losses}{figures['grad_norm']:>14.6g}{recorded['grad_norm']:>14.6g}  {told}"


def verdict(plan: Plan, first: int | None) -> str:
    """`first`: the first step that differs."""
    if first is None:
        return f"\nall figures of {len(plan.steps)} steps equal those of the run bit by bit"
    if plan.changes:
        return f"\nfrom step {first} on: what the batches of the run would have given with {', '.join(plan.changes)}"
    return f"\nstep {first} is the first that differs. Possible causes: {CAUSES}"
