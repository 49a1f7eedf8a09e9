"""Real parts for the end-to-end tests: a base model trained for seconds, and the command line as users have it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BASE_STEPS = 300  # enough that some proposals are valid
SMALL = [
    "algorithm.proposals=4",
    "algorithm.solves=2",
    "algorithm.samples=3",
    "algorithm.solve_samples=3",
    "algorithm.train_mc=3",
    "eval.tasks=0",
    "logging.view=plain",
    "logging.wandb=disabled",
]


def output_until(process: subprocess.Popen[str], wanted: Callable[[str], bool]) -> str:
    """What `process` says up to and with the first line that is wanted, or to its end."""
    assert process.stdout is not None
    output = ""
    for line in process.stdout:
        output += line
        if wanted(line):
            break
    return output


def tells_a_step(line: str) -> bool:
    """Of a learner step that is done."""
    return line.startswith("step ") and not line.startswith("step 0/")


@dataclass(frozen=True)
class Runs:
    """Starts `azr train` in a folder of its own."""

    model: Path
    folder: Path
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def arguments(self, name: str, *settings: str) -> list[str]:
        return [
            sys.executable,
            "-m",
            "azr.cli",
            "train",
            str(ROOT / "configs" / "tiny.yaml"),
            f"model.path={self.model}",
            f"run.folder={self.folder}",
            f"run.name={name}",
            *SMALL,
            *settings,
        ]

    def start(self, name: str, *settings: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.arguments(name, *settings), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.started.append(process)
        return process

    def finish(self, name: str, *settings: str) -> Path:
        """Run to the end; the run folder."""
        process = self.start(name, *settings)
        output, _ = process.communicate(timeout=400)
        assert process.returncode == 0, output + self.logs(name)
        return self.folder / name

    def logs(self, name: str) -> str:
        return "\n".join(f"== {p.name}\n{p.read_text()[-2000:]}" for p in (self.folder / name).glob("logs/*.log"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny"
    subprocess.run(
        [sys.executable, "-m", "azr.cli", "base", "--out", str(path), "--steps", str(BASE_STEPS)],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=400,
    )
    return path


@pytest.fixture
def runs(tiny_model: Path, tmp_path: Path) -> Iterator[Runs]:
    """Whatever a test leaves running is killed; the guard then ends the rest of that run."""
    runs = Runs(tiny_model, tmp_path)
    yield runs
    for process in runs.started:
        if process.poll() is None:
            process.kill()
            process.communicate()


@pytest.fixture
def rows() -> Callable[[Path], list[dict[str, Any]]]:
    def read(folder: Path) -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        return [line for line in lines if "seconds" in line]  # not those of evaluations and analysis

    return read
