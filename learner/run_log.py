"""What a run leaves for people: metrics.jsonl (a row per learner step), trace.json (Chrome/Perfetto), summary.json.

Everything here is derived; training never reads it.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.messages import Report
from common.types import STREAMS, Group, TaskType
from learner import trace
from learner.batch import TrainSequence, staleness
from learner.evaluation import Accuracy


def batch_metrics(step: int, batch: Sequence[Group], rows: Sequence[TrainSequence]) -> dict[str, float]:
    """Figures of one batch, per stream where it makes sense."""
    out: dict[str, float] = {"groups": len(batch), "sequences": len(rows)}
    samples = [sample for group in batch for sample in group.samples]
    out["tokens"] = sum(len(s.tokens) for s in samples)
    for stream in STREAMS:
        of = [s for s in samples if s.stream is stream]
        if not of:
            continue
        out[f"{stream}/reward"] = float(np.mean([s.reward for s in of]))
        out[f"{stream}/valid" if stream.proposes else f"{stream}/accuracy"] = float(
            np.mean([s.status == "ok" if stream.proposes else s.correct for s in of])
        )
        out[f"{stream}/format"] = float(np.mean([s.status != "format" for s in of]))
        out[f"{stream}/length"] = float(np.mean([len(s.tokens) for s in of]))
        if stream.proposes:
            rates = [g.solve_rate for g in batch if g.kind is stream and g.solve_rate is not None]
            if rates:
                out[f"{stream}/solve_rate"] = float(np.mean(rates))
                out[f"{stream}/learnable"] = float(np.mean([0 < r < 1 for r in rates]))
    ages = staleness_histogram(step, batch)
    total = sum(ages.values())
    out["staleness/mean"] = sum(age * n for age, n in ages.items()) / total if total else 0.0
    out["staleness/max"] = max(ages, default=0)
    return out


def staleness_histogram(step: int, batch: Sequence[Group]) -> Counter[int]:
    """Trained tokens by staleness."""
    ages: Counter[int] = Counter()
    for group in batch:
        for sample in group.samples:
            if sample.trainable:
                values, counts = np.unique(staleness(sample, step), return_counts=True)
                ages.update({int(v): int(n) for v, n in zip(values, counts, strict=True)})
    return ages


class RunLog:
    """Writes the files of a run folder and keeps the newest figures for whoever watches."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._metrics = (folder / "metrics.jsonl").open("a", buffering=1)
        self._parts = trace.reopen(folder / "trace.json")
        self._trace = (folder / "trace.json").open("a", buffering=1 << 16)
        self.ledger: dict[str, dict[str, float]] = {}
        self.state: dict[str, str] = {}
        self.staleness: Counter[int] = Counter()
        self.rows = 0
        self.sequences = 0
        self.last: dict[str, float] = {}
        self.began = time.time()

    def step(self, row: Mapping[str, float], ages: Counter[int]) -> None:
        self.last = dict(row)
        self.rows += 1
        self.sequences += int(row.get("sequences", 0))
        self.staleness.update(ages)
        self._metrics.write(json.dumps(dict(row)) + "\n")

    def evaluation(self, accuracy: Accuracy) -> None:
        figures = {f"eval/{t}": accuracy.of(t) for t in TaskType}
        self._metrics.write(json.dumps({"version": accuracy.version, **figures}) + "\n")

    def report(self, message: Report) -> None:
        if message.part not in self._parts:
            self._parts[message.part] = len(self._parts) + 1
            self._event(ph="M", name="process_name", args={"name": message.part}, part=message.part)
        self.ledger[message.part] = dict(message.ledger)
        self.state[message.part] = message.state
        for state, begin, end in message.spans:
            self._event(ph="X", name=state, ts=begin * 1e6, dur=(end - begin) * 1e6, part=message.part)
        for at, tokens in message.produced:
            self._event(ph="C", name="tokens", ts=at * 1e6, args={"tokens": tokens}, part=message.part)

    def shares(self) -> dict[str, dict[str, float]]:
        """Per process, the share of its wall time in each ledger state."""
        return {
            part: {state: seconds / max(sum(states.values()), 1e-9) for state, seconds in states.items()}
            for part, states in self.ledger.items()
        }

    def summary(self, figures: Mapping[str, Any], rounds: Sequence[Accuracy]) -> dict[str, Any]:
        """Write summary.json (temp, then rename) and return it."""
        seconds = time.time() - self.began
        self._trace.flush()
        seen = trace.overlap(trace.read(self._folder / "trace.json"))
        out = {
            "seconds": seconds,
            "steps": self.rows,
            "sequences": self.sequences,
            "sequences_per_second": self.sequences / seconds if seconds else 0.0,
            "staleness": {str(age): n for age, n in sorted(self.staleness.items())},
            "evaluation": [
                {
                    "version": r.version,
                    "accuracy": {t.value: r.of(t) for t in TaskType},
                    "asked": {t.value: r.asked[t] for t in TaskType},
                }
                for r in rounds
            ],
            "ledger": self.shares(),
            "overlap": {"steps": seen.steps, "with_tokens": seen.with_tokens},
            **figures,
        }
        partial = self._folder / "summary.json.part"
        partial.write_text(json.dumps(out, indent=1))
        partial.rename(self._folder / "summary.json")
        return out

    def close(self) -> None:
        """A trace file may end without its closing bracket; viewers accept that after a crash."""
        self._metrics.close()
        self._trace.write("{}]\n")
        self._trace.close()

    def _event(self, *, part: str, **event: Any) -> None:
        self._trace.write(json.dumps({**event, "pid": self._parts[part], "tid": 0}) + trace.END_OF_EVENT)
