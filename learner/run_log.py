"""What a run leaves for people: metrics.jsonl (a row per learner step and round of evaluation), evaluation.jsonl (a
row per answer), trace.json (Chrome/Perfetto), summary.json.

Everything here is derived; training never reads it. After a resume steps and answers may appear again: the last row of
a step, or of a (version, set, type, key), is the one that counts.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from common.messages import Report
from common.push_span import PushCosts, PushSpan
from common.types import STREAMS, TASK_TYPES, Group, Sample, Status
from learner import trace
from learner.batch import TrainSequence
from learner.evaluation import EvalSet, Round
from learner.lives import Lives


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
        lengths = [len(s.tokens) for s in of]
        out[f"{stream}/length"], out[f"{stream}/length_deviation"] = float(np.mean(lengths)), float(np.std(lengths))
        if stream.proposes:
            rates = [g.solve_rate for g in batch if g.kind is stream and g.solve_rate is not None]
            if rates:
                out[f"{stream}/solve_rate"] = float(np.mean(rates))
                out[f"{stream}/learnable"] = float(np.mean([0 < r < 1 for r in rates]))
            for status, count in rejections(of).items():
                out[f"{stream}/rejected/{status}"] = count / len(of)
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
                for span in sample.spans:
                    ages[step - span.version] += span.end - span.start
    return ages


def rejections(samples: Iterable[Sample]) -> Counter[str]:
    """Proposals that came to no task, by the rule that rejected them."""
    return Counter(str(s.status) for s in samples if s.stream.proposes and s.status != Status.OK)


class RunLog:
    """Writes the files of a run folder and keeps the newest figures for whoever watches."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._metrics = (folder / "metrics.jsonl").open("a", buffering=1)
        self._parts = trace.reopen(folder / "trace.json")
        self._trace = (folder / "trace.json").open("a", buffering=1 << 16)
        self._ledger: defaultdict[str, Lives] = defaultdict(Lives)  # seconds by state, of each part
        self.state: dict[str, str] = {}
        self.staleness: Counter[int] = Counter()
        self._cpu: defaultdict[str, Lives] = defaultdict(Lives)  # seconds by part (common/cpu_time.py)
        self.pushes: list[PushSpan] = []
        self.rejected: Counter[str] = Counter()  # proposals of trained batches
        self.rows = 0
        self.sequences = 0
        self.last: dict[str, float] = {}
        self.began = time.time()

    def step(self, row: Mapping[str, float], ages: Counter[int]) -> None:
        self.last = dict(row)
        self.rows += 1
        self.mark("step", step=int(row["step"]))
        self._trace.flush()
        self.sequences += int(row.get("sequences", 0))
        self.staleness.update(ages)
        self._metrics.write(json.dumps(dict(row)) + "\n")

    def evaluation(self, result: Round) -> None:
        figures = {
            f"eval/{t}" if s is EvalSet.STANDARD else f"eval/{s}/{t}": result.accuracy(s, t)
            for s in result.sets
            for t in TASK_TYPES
        }
        self._metrics.write(json.dumps({"version": result.version, **figures}) + "\n")
        answers = (
            {"version": result.version, "set": q.set, "type": q.task.type, "key": q.task.key, "right": right}
            for q, right in result.right.items()
        )
        with (self._folder / "evaluation.jsonl").open("a") as file:
            file.writelines(json.dumps(answer) + "\n" for answer in answers)
        self.mark("evaluated", version=result.version)

    def analysis(self, row: Mapping[str, Any]) -> None:
        """Figures that came behind the row of their step."""
        self._metrics.write(json.dumps(dict(row)) + "\n")

    def report(self, message: Report) -> None:
        ledger, cpu = self._ledger[message.part], self._cpu[message.part]
        fell = sum(message.ledger.values()) < sum(ledger.now.values())
        if fell or message.cpu.get("process", 0.0) < cpu.now.get("process", 0.0):  # its start may have taken longest
            ledger.began()
            cpu.began()
        if message.spans and not ledger.now:
            self._event(ph="i", name=trace.BEGIN, ts=message.spans[0][1] * 1e6, s="p", part=message.part)
        ledger.tell(message.ledger)
        cpu.tell(message.cpu)
        self.state[message.part] = message.state
        for state, begin, end in message.spans:
            self._event(ph="X", name=state, ts=begin * 1e6, dur=(end - begin) * 1e6, part=message.part)
        for at, tokens in message.produced:
            self._event(ph="C", name=trace.TOKENS, ts=at * 1e6, args={"tokens": tokens}, part=message.part)
        if message.costs:
            self._event(ph="C", name=trace.COSTS, ts=time.time() * 1e6, args=dict(message.costs), part=message.part)
        for load in message.gpus:
            args = {"busy": load.busy, "memory": load.memory}
            self._event(ph="C", name=f"gpu {load.gpu}", ts=load.at * 1e6, args=args, part=message.part)
        for push in message.pushes:
            told = {"version": push.version, "tokens": push.tokens}
            at, seconds = push.begin * 1e6, push.seconds * 1e6
            self._event(ph="X", name=push.phase, ts=at, dur=seconds, tid=trace.PUSHES, args=told, part=message.part)
        self.pushes += message.pushes

    def mark(self, name: str, **args: int) -> None:
        """Something of the intake that learner steps wait for, now (learner/trace.py)."""
        self._event(ph="i", name=name, ts=time.time() * 1e6, s="p", args=args, part=trace.INTAKE)

    def eta(self, before: int, eta: int) -> None:
        """staleness.auto has decided (learner/auto_eta.py)."""
        self.mark("eta", before=before, eta=eta)
        for value in (before, eta):
            self._event(ph="C", name="eta", ts=time.time() * 1e6, args={"eta": value}, part=trace.INTAKE)

    def shares(self) -> dict[str, dict[str, float]]:
        """Per process, the share of its wall time in each ledger state, over all its lives."""
        totals = {part: lives.total for part, lives in self._ledger.items()}
        return {
            part: {state: seconds / max(sum(states.values()), 1e-9) for state, seconds in states.items()}
            for part, states in totals.items()
        }

    def status(self) -> dict[str, Any]:
        """The newest figures."""
        return {
            "states": self.state,
            "shares": self.shares(),
            "last": self.last,
            "staleness": {str(age): n for age, n in sorted(self.staleness.items())},
            "sequences": self.sequences,
        }

    def summary(self, figures: Mapping[str, Any], rounds: Sequence[Round]) -> dict[str, Any]:
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
            "rejected": dict(sorted(self.rejected.items())),
            "evaluation": [
                {
                    "version": r.version,
                    **_figures(r, EvalSet.STANDARD),
                    "sets": {s.value: _figures(r, s) for s in r.sets if s is not EvalSet.STANDARD},
                }
                for r in rounds
            ],
            "ledger": self.shares(),
            "cpu_seconds": {part: lives.total for part, lives in self._cpu.items()},
            "push_costs": dataclasses.asdict(PushCosts.of(self.pushes)),
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
        if part not in self._parts:
            self._parts[part] = len(self._parts) + 1
            self._event(ph="M", name="process_name", args={"name": part}, part=part)
        self._trace.write(json.dumps({"tid": trace.STATES, **event, "pid": self._parts[part]}) + trace.END_OF_EVENT)


def _figures(result: Round, eval_set: EvalSet) -> dict[str, Any]:
    return {
        "accuracy": result.accuracies(eval_set),
        "asked": {t.value: result.asked(eval_set, t) for t in TASK_TYPES},
    }
