"""What of a run can be replayed, from where, and with which settings: read from its folder, which stays as it is.

A replay begins with the base model if the journal has every batch, else with the oldest checkpoint from which on it has
them. Of steps that were trained again after a crash the last row of metrics.jsonl counts, and rows beyond the step
where a run was taken up again are of weights that no longer exist.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azr.timeline import load_rows
from common.config import Config, load
from common.errors import ConfigError
from learner.history import History
from learner.resume_point import kept_checkpoints

SECTIONS = ("learner", "algorithm", "intrinsic")  # what a replay computes with; the rest is in the batches already
SETTLING = "algorithm.", "intrinsic."  # what batches are settled with
PREFIX = "learner/"  # of the trainer's figures in metrics.jsonl
Figures = Mapping[str, float]


@dataclass(frozen=True)
class Plan:
    """`start`: the checkpoint of `steps.start` batches, None for the base model. `recorded`: the figures of the
    run's trainer by step. `changes`: settings that differ from the run's, in words."""

    config: Config
    folder: Path
    steps: range
    start: Path | None
    recorded: Mapping[int, Figures]
    changes: tuple[str, ...]


def plan(folder: Path, overrides: Sequence[str] = ()) -> Plan:
    """ConfigError with what is missing if nothing of the run can be replayed."""
    run = load(folder / "config.yaml")
    config = load(folder / "config.yaml", overrides)
    for word in overrides:
        if word.partition(".")[0] not in SECTIONS and not word.startswith("model.path="):
            allowed = ", ".join(f"{section}.KEY" for section in SECTIONS)
            raise ConfigError(f"{word} has no effect on batches that have been sampled; a replay takes {allowed}")
    if not run.learner.trainers or not config.learner.trainers:
        raise ConfigError(f"{folder}: without a learner (learner.kind=none) there are no losses to replay")
    if not Path(config.model.path, "config.json").exists():
        raise ConfigError(f"the base model of the run is gone: no {config.model.path}; model.path=DIR says where it is")
    recorded = lineage(load_rows(folder / "metrics.jsonl"))
    steps, start = _reach(folder, recorded)
    changed = tuple(changes(run, config))
    if not run.logging.keep_journal and any(change.startswith(SETTLING) for change in changed):
        raise ConfigError(
            f"{folder}: logging.keep_journal was false, so its journal has batches settled with the run's settings of "
            "algorithm and intrinsic, not as they were delivered; a replay takes learner.KEY alone"
        )
    return Plan(config, folder, steps, start, recorded, changed)


def lineage(rows: Iterable[Mapping[str, Any]]) -> dict[int, Figures]:
    """The trainer's figures by step, from the rows of metrics.jsonl in the order in which they were written."""
    found: dict[int, Figures] = {}
    for row in rows:
        if PREFIX + "loss" not in row:
            continue
        step = int(row["step"])
        found = {earlier: figures for earlier, figures in found.items() if earlier < step}
        found[step] = {name.removeprefix(PREFIX): value for name, value in row.items() if name.startswith(PREFIX)}
    return found


def longest(starts: Iterable[int], steps: Collection[int]) -> range:
    """The longest stretch of `steps` without a gap that begins with one of `starts`, the earliest of equals."""
    found = range(0)
    for start in sorted(starts):
        end = start
        while end in steps:
            end += 1
        if end - start > len(found):
            found = range(start, end)
    return found


def changes(run: Config, config: Config) -> Iterable[str]:
    """Settings of a replay that differ from the run's and matter to it."""
    for section in SECTIONS:
        old, new = getattr(run, section), getattr(config, section)
        for field in dataclasses.fields(old):
            was, now = getattr(old, field.name), getattr(new, field.name)
            if was != now:
                yield f"{section}.{field.name}={now} (run: {was})"


def _reach(folder: Path, recorded: Mapping[int, Figures]) -> tuple[range, Path | None]:
    if not recorded:
        raise ConfigError(f"{folder} has no trained step in its metrics.jsonl: there is nothing to compare with")
    journaled = set(History(folder / "journal"))
    checkpoints = kept_checkpoints(folder)
    steps = longest((0, *checkpoints), journaled & set(recorded))
    if not steps:
        begins = ", ".join(["the base model", *(path.name for path in checkpoints.values())])
        raise ConfigError(
            f"{folder}: its journal has no batch that was trained right after {begins}. What checkpoints contain is in "
            "the journal only with logging.keep_journal=true"
        )
    return steps, checkpoints[steps.start] if steps.start else None
