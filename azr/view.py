"""What a run shows in the terminal: a live screen where there is one, a line per step elsewhere, a table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from common.config import Config
from common.types import STREAMS, TASK_TYPES, TaskType, propose, solve


class View:
    """A context. `progress` tells what is being started; `show` takes the intake's status."""

    def __init__(self, config: Config, folder: Path, console: Console | None = None) -> None:
        self._console = console or Console()
        mode = config.logging.view
        live = mode == "live" or (mode == "auto" and self._console.is_terminal)
        self._live = Live(console=self._console, refresh_per_second=2) if live else None
        self._folder = folder
        self._shown = ""
        self._stalled = False

    def __enter__(self) -> Self:
        self._print(f"run folder: {self._folder}")
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def progress(self, what: str) -> None:
        self._print(f"· {what}")

    def show(self, status: Mapping[str, Any]) -> None:
        if status["stall"] and not self._stalled:
            self._print("\n  ".join(status["stall"]))
        self._stalled = bool(status["stall"])
        if self._live is not None:
            self._live.update(screen(status))
        elif (shown := _seeding(status) or f"step {status['step']}") != self._shown:
            self._shown = shown
            self._print(_seeding(status) or line(status))

    def _print(self, text: str) -> None:
        """As it is: one line, and an error text with brackets is no markup."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def line(status: Mapping[str, Any]) -> str:
    last = status["last"]
    accuracy = " ".join(f"{t.value[:3]} {last.get(f'solve/{t}/accuracy', 0):.2f}" for t in _types(status))
    return (
        f"step {status['step']}/{status['steps']}  version {status['version']}  solved {accuracy}  "
        f"staleness {last.get('staleness/mean', 0):.1f}{_eta(status)}  waiting {sum(status['waiting'].values())}  "
        f"open {sum(status['open'].values())}{'  evaluating' if status['evaluating'] else ''}"
        f"{'  flagged ' + status['flags'] if status['flags'] else ''}"
    )


def screen(status: Mapping[str, Any]) -> Panel:
    last = status["last"]
    streams = Table("stream", "reward", "right or valid", "length", "waiting", box=None)
    for stream in (stream for stream in STREAMS if stream.task_type in _types(status)):
        share = last.get(f"{stream}/valid" if stream.proposes else f"{stream}/accuracy", 0.0)
        streams.add_row(
            stream.value,
            f"{last.get(f'{stream}/reward', 0.0):+.2f}",
            f"{share:.2f}",
            f"{last.get(f'{stream}/length', 0.0):.1f}",
            str(status["waiting"].get(stream.value, 0)),
        )
    parts = Table("process", "is in", "share of its time", box=None)
    for part, shares in sorted(status["shares"].items()):
        top = sorted(shares.items(), key=lambda item: -item[1])[:4]
        parts.add_row(part, status["states"].get(part, ""), "  ".join(f"{s} {v:.0%}" for s, v in top))
    ages = status["staleness"]
    total = sum(ages.values()) or 1
    staleness = "  ".join(f"{age}: {count / total:.0%}" for age, count in ages.items())
    head = Text(
        f"step {status['step']} of {status['steps']}   version {status['version']}   {status['sequences']} sequences"
    )
    head.append(_eta(status))
    bar = Table.grid()  # a bar alone would not end its line
    bar.add_row(ProgressBar(total=status["steps"], completed=status["step"], width=60))
    head.append(f"   {seeding}" if (seeding := _seeding(status)) else "")
    rows: list[RenderableType] = [head, bar, streams, Text(f"staleness of trained tokens  {staleness}"), parts]
    if status["stall"]:
        rows.append(Text("\n  ".join(status["stall"]), style="bold"))
    if status["flags"]:
        rows.append(Text(f"thoughts flagged by the safety rules: {status['flags']}, see safety.jsonl", style="bold"))
    return Panel(Group(*rows, *(Text(_accuracy(r)) for r in status["evaluation"])), title="azr")


def table(summary: Mapping[str, Any], folder: Path) -> str:
    """The closing table of a run."""
    lines = [
        f"run {folder}",
        f"{'steps':24}{summary['steps']}",
        f"{'discarded sequences' if 'rollout' in summary else 'trained sequences':24}{summary['sequences']}",
    ]
    lines.append(f"{'sequences per second':24}{summary['sequences_per_second']:.1f}")
    if "rollout" in summary:
        rates = summary["rollout"]
        lines.append(
            f"{'actors and executor':24}{rates['sequences_per_second']:.1f} sequences and "
            f"{rates['tokens_per_second']:.0f} answer tokens a second, over {rates['seconds']:.1f} s"
        )
    rounds = summary["evaluation"]
    for task_type in TASK_TYPES:
        lines += _before_after(f"held-out {task_type}", rounds, task_type)
    for task_type in TASK_TYPES:
        harder = [{**r["sets"]["harder"], "version": r["version"]} for r in rounds if "harder" in r.get("sets", {})]
        lines += _before_after(f"harder {task_type}", harder, task_type)
    ages = {int(age): count for age, count in summary["staleness"].items()}
    total = sum(ages.values()) or 1
    if "rollout" not in summary:
        lines.append(
            f"{'staleness of tokens':24}" + "  ".join(f"{a}: {n / total:.0%}" for a, n in sorted(ages.items()))
        )
        seen = summary["overlap"]
        lines.append(f"{'steps while generating':24}{seen['with_tokens']} of {seen['steps']}")
    for part, shares in sorted(summary["ledger"].items()):
        top = sorted(shares.items(), key=lambda item: -item[1])
        lines.append(f"{'time of ' + part:24}" + "  ".join(f"{state} {share:.0%}" for state, share in top))
    for name, counts in (("rejected proposals", summary["rejected"]), *_seeds(summary["seeds"])):
        if counts:
            lines.append(f"{name:24}" + "  ".join(f"{status} {count}" for status, count in sorted(counts.items())))
    if summary["flags"]:
        flagged = "  ".join(f"{rule} {count}" for rule, count in sorted(summary["flags"].items()))
        lines.append(f"{'flagged thoughts':24}{flagged}  (read {folder / 'safety.jsonl'})")
    lines.append(f"{'leases':24}" + "  ".join(f"{fate} {count}" for fate, count in sorted(summary["leases"].items())))
    return "\n".join(lines)


def _types(status: Mapping[str, Any]) -> list[TaskType]:
    """Those that every run has, and those that this one waits for."""
    waiting = status["waiting"]
    return [t for t in TaskType if t in TASK_TYPES or propose(t).value in waiting or solve(t).value in waiting]


def _eta(status: Mapping[str, Any]) -> str:
    """What is in force, where it moves (staleness.auto)."""
    return f"  eta {status['eta']}" if "eta" in status else ""


def _seeds(seeds: Mapping[str, Mapping[str, int]]) -> list[tuple[str, Mapping[str, int]]]:
    return [(f"seeds of {name}", counts) for name, counts in seeds.items()]


def _before_after(name: str, rounds: Sequence[Mapping[str, Any]], task_type: TaskType) -> list[str]:
    """A line, if there was a round."""
    figures = [f"{r['accuracy'][task_type.value]:.3f} (version {r['version']})" for r in rounds]
    return [f"{name:24}{' → '.join([figures[0], *figures[1:][-1:]])}"] if figures else []


def _seeding(status: Mapping[str, Any]) -> str:
    """How many seeds of how many there are, empty when there are enough."""
    seeds = "  ".join(f"{name} {got}/{wanted}" for name, (got, wanted) in status["seeding"].items())
    return f"seeding {seeds}" if seeds else ""


def _accuracy(row: Mapping[str, Any]) -> str:
    return f"held-out at version {row['version']}: " + "  ".join(f"{t.value} {row[t.value]:.3f}" for t in TASK_TYPES)
